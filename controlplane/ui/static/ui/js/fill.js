/* A file is read into the text field that data-fills names, here in the browser: it is sent as if it were pasted, and
 * never lies on the server's disk. */
const MOST_BYTES = 256 * 1024;

document.addEventListener("change", async (event) => {
  const field = event.target.dataset?.fills && document.getElementById(event.target.dataset.fills);
  const file = event.target.files?.[0];
  if (!field || !file) return;
  const tooLarge = file.size > MOST_BYTES;
  event.target.setCustomValidity(tooLarge ? "A kubeconfig has at most 256 KiB." : "");
  if (tooLarge) { event.target.reportValidity(); return; }
  field.value = await file.text();
  event.target.value = "";
  field.focus();
});
