// Keeps a page up to date: it asks for itself again and takes over what has changed, so that focus, scroll, what is open
// and what was typed stay. No text ever becomes markup here: the browser's own parser reads the answer as a document.
"use strict";

(() => {
  const main = document.getElementById("main");
  const notice = document.getElementById("notice");
  /** How long to wait after a question that failed, in milliseconds. */
  const AGAIN_MS = 3000;

  function say(text) {
    if (notice.textContent !== text) notice.textContent = text;
  }

  /** The page as it is now. */
  function fresh() {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("GET", location.pathname + location.search);
      request.responseType = "document";
      request.timeout = 15000;
      request.onload = () => resolve(request);
      request.onerror = request.ontimeout = () => reject(new Error("no answer"));
      request.send();
    });
  }

  /** Makes `old` what `now` is, in place. What is kept, and whatever a person has opened or typed, stays. */
  function take(old, now) {
    for (const { name } of [...old.attributes]) {
      if (!now.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    if (!old.hasAttribute("data-keep")) children(old, now);
  }

  function children(old, now) {
    const named = new Map();
    for (const child of old.children) if (child.id) named.set(child.id, child);
    let place = old.firstChild;
    for (const wanted of [...now.childNodes]) {
      let own = wanted.id ? named.get(wanted.id) : place;
      if (own && !wanted.id && own.id) own = null;
      if (own && own.nodeType === wanted.nodeType && own.nodeName === wanted.nodeName) {
        if (own === place) place = place.nextSibling;
        else old.insertBefore(own, place);
        if (own.nodeType === Node.ELEMENT_NODE) take(own, wanted);
        else if (own.data !== wanted.data) own.data = wanted.data;
      } else {
        old.insertBefore(document.importNode(wanted, true), place);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  }

  async function look() {
    let wait = Number(main.dataset.refresh);
    try {
      if (document.visibilityState === "visible") {
        const answer = await fresh();
        const now = answer.response && answer.response.getElementById("main");
        if (answer.status === 200 && now && new URL(answer.responseURL).pathname === location.pathname) {
          say("");
          if (answer.response.title !== document.title) document.title = answer.response.title;
          take(main, now);
          wait = Number(main.dataset.refresh);
        } else if (new URL(answer.responseURL).pathname === "/sign-in") {
          say("You are signed out: load the page again to sign in.");
          return;
        } else {
          say("The page can't be brought up to date at the moment.");
          wait = AGAIN_MS;
        }
      }
    } catch {
      say("The server doesn't answer; trying again.");
      wait = AGAIN_MS;
    }
    if (wait > 0) setTimeout(look, wait);
  }

  if (main.dataset.refresh) setTimeout(look, Number(main.dataset.refresh));
  // A disclosure that works like a menu closes with Escape, and gives the focus back.
  document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && event.target.closest("details.cancel[open]");
    if (open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
})();
