/* Sizes and durations as core/formats.py writes them, as far as an upload needs them. */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let step = 0;
  while (bytes >= 999.5 && step < units.length - 1) { bytes /= 1024; step += 1; }
  return `${bytes >= 100 || step === 0 ? Math.round(bytes) : bytes.toPrecision(3)} ${units[step]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
