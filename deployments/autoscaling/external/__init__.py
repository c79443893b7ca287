"""The external metrics API: what the autoscalers of clusters ask for, answered from memory.

A process of its own (`manage.py metrics_api`), because an APIService that does not answer breaks discovery and the
removal of namespaces in the whole cluster: it knows Redis, and neither the database nor logins.
"""
