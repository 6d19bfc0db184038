// A button in each block of code that copies its text, as written: lines that the page breaks stay one line.
for (const block of document.querySelectorAll("div.highlight > pre")) {
  const button = document.createElement("button");
  const say = (word) => { button.textContent = word; };
  button.type = "button";
  button.className = "copy";
  say("Copy");
  button.addEventListener("click", async () => {
    const done = navigator.clipboard?.writeText(block.textContent.trimEnd());
    say(await Promise.resolve(done ?? Promise.reject()).then(() => "Copied", () => "Not allowed"));
    setTimeout(say, 2000, "Copy");
  });
  block.parentElement.append(button);
}
