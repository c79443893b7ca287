/* The chart's colours, read from the tokens. The library does not know OKLCH, so each colour is painted on one
 * pixel and read back as the RGB it became. */
const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function rgb(probe, token) {
  probe.style.color = `var(${token})`;
  pixel.clearRect(0, 0, 1, 1);
  pixel.fillStyle = getComputedStyle(probe).color;
  pixel.fillRect(0, 0, 1, 1);
  const [red, green, blue] = pixel.getImageData(0, 0, 1, 1).data;
  return `rgb(${red},${green},${blue})`;
}

export function readTheme(root) {
  const probe = document.createElement("span");
  probe.hidden = true;
  root.append(probe);
  const colour = (token) => rgb(probe, token);
  const theme = {
    series: {
      p50: colour("--chart-p50"), p95: colour("--chart-p95"), p99: colour("--chart-p99"), throughput: colour("--chart-1"),
      queue_depth: colour("--chart-1"), in_flight: colour("--chart-2"), replicas: colour("--chart-3"), errors: colour("--chart-4"),
    },
    marks: { rollout: colour("--chart-mark"), scaling: colour("--chart-mark-scaling") },
    grid: colour("--chart-grid"), axis: colour("--chart-axis"), breach: colour("--chart-breach"),
    text: colour("--text"), label: colour("--surface-raised"), line: colour("--line"),
    font: getComputedStyle(document.body).fontFamily,
  };
  probe.remove();
  return theme;
}
