// Tabs, messages, and the beginning of everything.

import { DigitsTab } from "./digits.js";
import { $, complain } from "./look.js";
import { PointsTab } from "./points.js";

const NAMES = ["points", "digits"];
const points = new PointsTab();
const digits = new DigitsTab();

function open(name, focus) {
  for (const other of NAMES) {
    const on = other === name;
    $(other).hidden = !on;
    $(`tab-${other}`).setAttribute("aria-selected", on);
    $(`tab-${other}`).tabIndex = on ? 0 : -1;
    if (on && focus) $(`tab-${other}`).focus();
  }
  complain("");
  if (location.hash.slice(1) !== name) history.replaceState(null, "", `#${name}`);
  if (name === "digits") digits.open();
}

NAMES.forEach((name, i) => {
  const tab = $(`tab-${name}`);
  tab.onclick = () => open(name);
  tab.onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) open(NAMES[(i + by + NAMES.length) % NAMES.length], true);
  };
});
$("alert").querySelector("button").onclick = () => complain("");
window.addEventListener("hashchange", () => NAMES.includes(location.hash.slice(1)) && open(location.hash.slice(1)));

digits.start();
if (NAMES.includes(location.hash.slice(1))) open(location.hash.slice(1));
points.start().catch((error) => complain(error.message));
