// Keeps the page fresh without reloading it: what is open stays open, what has the focus keeps it.
// Without it, or without scripts, the page is as of the moment in which it was loaded.
"use strict";
(() => {
  const FALLBACK_MS = 5000;
  let asking = false, due = false;

  function kept(element) {
    if (!element || element === document.body) return null;
    if (element.id) return "#" + CSS.escape(element.id);
    const href = element.getAttribute("href");
    return href ? `${element.tagName}[href="${CSS.escape(href)}"]` : null;
  }

  function put(fresh) {
    const old = document.querySelector("main"), next = fresh.querySelector("main");
    document.title = fresh.title;
    if (!old || !next) return;
    const focus = kept(document.activeElement);
    for (const section of [...next.children]) {
      const there = section.id && old.querySelector(":scope > #" + CSS.escape(section.id));
      if (there && there.contains(document.activeElement) && there.querySelector("form")) {
        section.replaceWith(there.cloneNode(true)); // somebody is typing there
      }
    }
    for (const open of old.querySelectorAll("details[open]")) {
      const again = open.id && next.querySelector("#" + CSS.escape(open.id));
      if (again) again.open = true;
    }
    for (const there of [...next.children]) {
      const was = there.id && old.querySelector(":scope > #" + CSS.escape(there.id));
      if (was && was.isEqualNode(there)) there.replaceWith(was);
    }
    old.replaceChildren(...next.children);
    const again = focus && document.querySelector(focus);
    if (again && again !== document.activeElement) again.focus({ preventScroll: true });
  }

  async function refresh() {
    if (document.hidden) { due = true; return; }
    if (asking) { due = true; return; }
    asking = true;
    due = false;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
      document.documentElement.classList.remove("away");
    } catch {
      document.documentElement.classList.add("away");
    } finally {
      asking = false;
    }
    if (due) setTimeout(refresh, 500);
  }

  const root = document.currentScript.dataset.root;
  let timer = null;
  const source = new EventSource(root + "live");
  source.addEventListener("look", () => { clearInterval(timer); timer = null; refresh(); });
  source.addEventListener("error", () => {
    if (timer === null) timer = setInterval(refresh, FALLBACK_MS);
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && due) refresh(); });
  document.documentElement.classList.add("live");
})();
