/* Native dialogs. Anything with data-dialog="id" opens that dialog; a link keeps its address for the case that
 * the dialog is not in the page. The browser gives focus back to the opener. hx-confirm asks in one of ours. */
function open(dialog) {
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector("[autofocus]") ?? dialog.querySelector("[data-confirm-name]"))?.focus();
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest?.("[data-dialog]");
  const dialog = opener && document.getElementById(opener.dataset.dialog);
  if (dialog instanceof HTMLDialogElement) {
    event.preventDefault();
    open(dialog);
    return;
  }
  const closer = event.target.closest?.("[data-dialog-close]");
  if (closer) closer.closest("dialog")?.close();
  else if (event.target instanceof HTMLDialogElement && event.target.open) event.target.close(); // the veil
});

/* Typing the name unlocks the destructive button of the same form. */
function lock(input) {
  const button = input.form?.querySelector("button:not([type='button'])");
  if (button) button.disabled = input.value !== input.dataset.confirmName;
}
document.addEventListener("input", (event) => { if (event.target.matches?.("[data-confirm-name]")) lock(event.target); });
for (const input of document.querySelectorAll("[data-confirm-name]")) lock(input);
document.addEventListener("htmx:after:settle", () => document.querySelectorAll("[data-confirm-name]").forEach(lock));

function question(text, answer) {
  const dialog = document.createElement("dialog");
  dialog.className = "dialog";
  dialog.setAttribute("aria-label", text);
  const body = document.createElement("form");
  body.className = "dialog-body";
  body.method = "dialog";
  const words = document.createElement("p");
  words.textContent = text;
  const actions = document.createElement("div");
  actions.className = "form-actions";
  for (const [value, label, kind] of [["no", "Cancel", ""], ["yes", "Continue", "primary"]]) {
    const button = document.createElement("button");
    button.className = "button";
    button.value = value;
    button.textContent = label;
    if (kind) button.dataset.kind = kind;
    actions.append(button);
  }
  body.append(words, actions);
  dialog.append(body);
  document.body.append(dialog);
  dialog.addEventListener("close", () => { answer(dialog.returnValue === "yes"); dialog.remove(); });
  dialog.showModal();
}

document.addEventListener("htmx:confirm", (event) => {
  event.preventDefault();
  const { ctx, issueRequest, dropRequest } = event.detail;
  question(ctx.confirm, (yes) => (yes ? issueRequest() : dropRequest()));
});
