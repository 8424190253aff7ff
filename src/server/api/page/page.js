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

// Boots in progress: each event is one boot as GET /boots shows it.
const list = document.getElementById("boots");
if (list) {
  const live = document.querySelector("[data-live]");
  const mib = (bytes) => (Math.floor((bytes * 10) / 2 ** 20) / 10).toFixed(1);
  const row = (key) => list.querySelector(`[data-boot="${key}"]`);

  // A place for a boot that is new here: another one that has ended makes room.
  const place = (key) => {
    if (list.children.length >= Number(list.dataset.most)) {
      const ended = [...list.children].find((item) => item.querySelector("[data-outcome]").textContent !== "Running");
      if (!ended) return null;
      ended.remove();
    }
    const item = document.getElementById("boot").content.firstElementChild.cloneNode(true);
    item.dataset.boot = key;
    item.querySelector("a").href += key;
    list.prepend(item);
    document.querySelector("[data-none]").hidden = true;
    return item;
  };

  const show = (boot) => {
    if (list.dataset.only && list.dataset.only !== boot.mac) return;
    const key = boot.mac.replaceAll(":", "-");
    const item = row(key) ?? (boot.outcome === "Running" || list.dataset.only ? place(key) : null);
    if (!item) return;
    const set = (name, text) => { item.querySelector(`[data-${name}]`).textContent = text; };
    set("mac", boot.mac);
    set("outcome", boot.outcome);
    set("why", boot.reason ?? "its script came from another replica");
    set("begun", `${boot.begun.slice(0, 19).replace("T", " ")} UTC`);
    for (const bar of item.querySelectorAll("[data-kind]")) {
      const step = boot.steps.findLast((one) => one.kind === bar.dataset.kind);
      const progress = bar.querySelector("progress");
      progress.ariaLabel = `${bar.dataset.kind} of ${boot.mac}`;
      progress.max = step?.length || 1;
      const isRefused = step?.state === "Refused";
      if (step && !step.length && !isRefused) progress.removeAttribute("value");
      else progress.value = step?.bytes ?? 0;
      const of = step?.length ? ` of ${mib(step.length)}` : "";
      const sent = isRefused ? "asked for, refused" : step && `${mib(step.bytes)}${of} MiB, ${step.state}`;
      bar.querySelector("[data-text]").textContent = sent ?? "not asked for yet";
    }
  };

  const stream = new EventSource(`${document.body.dataset.root}boots/stream`);
  stream.onopen = () => { live.textContent = "Live."; };
  stream.onerror = () => { live.textContent = "Not live at the moment: load the page again to see how it goes on."; };
  stream.onmessage = (event) => show(JSON.parse(event.data));
}
