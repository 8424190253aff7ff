// What pages for people can do with scripts on. Without them nothing is missing but this.
"use strict";

// Buttons that copy a text. navigator.clipboard is there over TLS only; this way is everywhere.
for (const button of document.querySelectorAll("button[data-copy]")) {
  const text = document.getElementById(button.dataset.copy);
  const told = document.querySelector(`[data-copied="${button.dataset.copy}"]`);
  button.hidden = false;
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(text);
    // To the byte: a selection leaves out the last line's end.
    const fill = (event) => {
      event.clipboardData.setData("text/plain", text.textContent);
      event.preventDefault();
    };
    document.addEventListener("copy", fill, { once: true });
    const done = document.execCommand("copy");
    document.removeEventListener("copy", fill);
    told.textContent = done ? "Copied." : "It is selected: copy it with the keyboard.";
  });
}
