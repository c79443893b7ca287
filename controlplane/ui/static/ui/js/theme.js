/* The theme and the width of the rail, before the first paint. The only script that blocks, and not a module,
 * because a module would run too late and flash. `system` is the absence of a choice. */
(() => {
  const root = document.documentElement;
  root.dataset.scripts = "";

  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const keep = (name, value) => {
    try { value ? localStorage.setItem(name, value) : localStorage.removeItem(name); } catch { /* private mode: for this page only */ }
  };
  const applyTheme = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  const applyRail = (rail) => {
    if (rail === "narrow") root.dataset.rail = rail;
    else delete root.dataset.rail;
  };
  const marks = () => {
    for (const button of document.querySelectorAll("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === (root.dataset.theme ?? "system")));
    }
  };
  const changed = () => { marks(); document.dispatchEvent(new CustomEvent("slipway:theme")); };

  applyTheme(kept("slipway.theme"));
  applyRail(kept("slipway.rail"));

  document.addEventListener("DOMContentLoaded", marks);
  document.addEventListener("click", (event) => {
    const choice = event.target.closest?.("[data-theme-choice]")?.dataset.themeChoice;
    if (choice) {
      const theme = choice === "system" ? "" : choice;
      keep("slipway.theme", theme);
      applyTheme(theme);
      changed();
    }
    if (event.target.closest?.("[data-rail-toggle]")) {
      const rail = root.dataset.rail === "narrow" ? "" : "narrow";
      keep("slipway.rail", rail);
      applyRail(rail);
      window.dispatchEvent(new Event("resize"));
    }
  });
  addEventListener("storage", (event) => {
    if (event.key === "slipway.theme") { applyTheme(event.newValue); changed(); }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
})();
