/* Numbers as core/formats.py writes them: three significant digits, a dash for nothing. */
export function significant(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  if (Math.abs(value) < 0.001) return value < 0 ? ">−0.001" : "<0.001";
  for (const [size, suffix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
    if (Math.abs(value) >= size) return significant(value / size) + suffix;
  }
  if (Number.isInteger(value) && Math.abs(value) < 1000) return String(value);
  return Number(value.toPrecision(3)).toLocaleString("en-US", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 }).replace("-", "−");
}
