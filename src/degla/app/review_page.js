() => {
  const buttons = {
    a: "review-accept",
    r: "review-reject",
    u: "review-undo",
    ArrowLeft: "review-previous",
    ArrowRight: "review-next",
  };
  let busy = false;
  let patience;
  const field = () => document.querySelector("#review-text textarea");
  window.deglaReview = {
    // The answer has arrived. Accept the next key once its draft is visible.
    done: (key) => {
      const seen = document.querySelector("#review-texts [data-key]");
      if (seen && seen.dataset.key !== key.split(" ")[0]) {
        requestAnimationFrame(() => window.deglaReview.done(key));
        return;
      }
      busy = false;
    },
    isBusy: () => busy,
    edit: () => {
      const text = field();
      text.focus();
      text.setSelectionRange(text.value.length, text.value.length);
    },
  };
  const press = (id) => {
    const button = document.getElementById(id);
    if (busy || !button) return;
    busy = true;
    clearTimeout(patience);
    patience = setTimeout(() => { busy = false; }, 5000); // in case the server has stopped or failed
    button.click();
  };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, input");
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        event.target.blur();
        press(buttons.a);
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "e") {
      event.preventDefault();
      window.deglaReview.edit();
    } else if (key in buttons) {
      event.preventDefault();
      press(buttons[key]);
    }
  });
  const shortcuts = { "review-edit": "e" };
  for (const [key, id] of Object.entries(buttons)) shortcuts[id] = key;
  const label = () => {
    for (const [id, key] of Object.entries(shortcuts)) {
      const button = document.getElementById(id);
      if (!button) return setTimeout(label, 50);
      button.setAttribute("aria-keyshortcuts", key);
    }
    field().dir = "auto"; // a text in any script
  };
  label();
}
