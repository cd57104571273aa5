"use strict";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
  const form = { a: "right", r: "wrong" }[event.key.toLowerCase()];
  const button = form && document.querySelector(`#${form} button`);
  if (button && !button.disabled) button.click();
});
