// Figures for people: three digits are enough, and they stand under each other.

export function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s < 0.0995e-3) return `${Math.round(s * 1e6)} µs`;
  if (s < 0.0995) return `${(s * 1e3).toFixed(s < 0.00995 ? 2 : 1)} ms`;
  if (s < 0.9995) return `${Math.round(s * 1e3)} ms`;
  if (s < 120) return `${s.toFixed(s < 9.95 ? 2 : 1)} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  return s < 172800 ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min` : `${Math.floor(s / 86400)} days`;
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  for (; n >= 1000 && unit < 3; unit += 1) n /= 1024;
  return `${n.toFixed(n < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

export function count(n) {
  return n.toLocaleString("en").replaceAll(",", "\u202f");
}

export function rate(n) {
  if (!n) return "0";
  return n < 10 ? n.toFixed(1) : count(Math.round(n));
}

export function clock(epoch) {
  return new Date(epoch * 1000).toLocaleTimeString([], { hour12: false });
}
