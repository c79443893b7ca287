/* What every page loads. Each module has one subject and listens on the document, so that nothing has to be
 * wired again after a live refresh. The two heavy subjects come only where their part stands in the page. */
import "./times.js";
import "./copy.js";
import "./dialogs.js";
import "./forms.js";
import "./shortcuts.js";
import "./toast.js";
import "./live.js";

const heavy = [["[data-log]", "./log.js"], ["[data-charts]", "./charts.js"], ["[data-retry]", "./retry.js"], ["[data-upload]", "./upload.js"], ["[data-fills]", "./fill.js"]];
const load = () => heavy.forEach(([part, module]) => { if (document.querySelector(part)) import(module); });
load();
document.addEventListener("htmx:after:settle", load);
