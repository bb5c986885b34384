// What a person sees of the chat example in Chromium.
//
// usage: node chat.js HOST:PORT CASE CHROMIUM. Asks on stdout for what it cannot do itself.
import assert from "node:assert/strict";

import { chromium } from "playwright-core";

const [address, name, executablePath] = process.argv.slice(2);
const origin = `http://${address}`;
const PROMPT = "<b>one</b> two three four five";
const ANSWER = `${PROMPT} generated_response`;
const PATIENCE_MS = 20_000;

const problems = [];

async function open(context, path = "/") {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("pageerror", (error) => problems.push(`${error}`));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) problems.push(message.text());
  });
  await page.goto(origin + path);
  return page;
}

async function ask(page) {
  await page.getByLabel("Your prompt").fill(PROMPT);
  await page.getByRole("button", { name: "Send" }).click();
}

const shown = (page) => page.locator("#answer").textContent();

async function until(page, words) {
  await page.waitForFunction(
    (count) => document.getElementById("answer").textContent.split(" ").filter(Boolean).length >= count,
    words,
  );
  return shown(page);
}

async function state(page, wanted) {
  await page.locator(`#state[data-state="${wanted}"]`).waitFor();
  return page.locator("#state").textContent();
}

// All of the answer, exactly once.
async function complete(page) {
  await state(page, "done");
  assert.equal(await shown(page), ANSWER);
}

const fragment = (page) => new URL(page.url()).hash;

const cases = {
  async tokens_appear_as_they_come(context) {
    const page = await open(context);
    await ask(page);
    const first = await until(page, 1);
    assert.ok(ANSWER.startsWith(first) && first.length < ANSWER.length, first);
    await state(page, "streaming");
    await complete(page);
    assert.equal(await page.locator("#prompt").textContent(), PROMPT);
    // What a model says is text, and no part of the page.
    assert.equal(await page.locator("#answer b").count(), 0);
  },

  async a_reload_in_mid_stream_loses_nothing(context) {
    const page = await open(context);
    await ask(page);
    await until(page, 2);
    await page.reload();
    const again = await until(page, 1);
    assert.ok(again.length < ANSWER.length, "the reload came too late");
    await complete(page);
    assert.equal(await page.locator("#prompt").textContent(), PROMPT);
    // And once more, when all is said.
    await page.reload();
    await complete(page);
  },

  async who_opens_late_sees_all(context) {
    const page = await open(context);
    await ask(page);
    await complete(page);
    const late = await open(context, `/${fragment(page)}`);
    await complete(late);
  },

  async two_tabs_see_the_same(context) {
    const page = await open(context);
    await ask(page);
    await until(page, 2);
    const beside = await open(context, `/${fragment(page)}`);
    await Promise.all([complete(page), complete(beside)]);
  },

  async another_browser_is_refused(context, browser) {
    const page = await open(context);
    await ask(page);
    await until(page, 1);
    const stranger = await open(await browser.newContext(), `/${fragment(page)}`);
    assert.match(await state(stranger, "failed"), /not to be read here/);
    assert.equal(await shown(stranger), "");
    await complete(page);
  },

  async a_dead_dispatcher_is_told(context) {
    const page = await open(context);
    await ask(page);
    await until(page, 2);
    console.log("kill the dispatcher");
    assert.equal(await state(page, "failed"), "the dispatcher is gone");
    assert.ok((await shown(page)).length < ANSWER.length);
    // Nor does a reload hang, and there is nobody to ask.
    await page.reload();
    assert.equal(await state(page, "failed"), "the dispatcher is gone");
    await ask(page);
    await page.getByText("enqueue failed").waitFor();
  },

  async a_model_that_is_down_is_told(context) {
    const page = await open(context);
    console.log("kill the model");
    // Until the other side has done so, answers are complete.
    await page.waitForTimeout(500);
    await ask(page);
    assert.equal(await state(page, "failed"), "the model cannot be reached");
  },

  async an_api_that_comes_back_is_found_again(context) {
    const page = await open(context);
    await ask(page);
    await until(page, 2);
    console.log("replace the api");
    await complete(page);
  },

  async it_is_used_by_keyboard_and_in_the_dark(context) {
    const page = await open(context);
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.emulateMedia({ colorScheme: "light" });
    const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.notEqual(dark, light);
    // The prompt has the focus from the start.
    await page.keyboard.type("one");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("two");
    await page.keyboard.press("Enter");
    await state(page, "done");
    assert.equal(await shown(page), "one two generated_response");
    await page.keyboard.type("again");
    await page.keyboard.press("Enter");
    await until(page, 1);
    await state(page, "done");
    assert.equal(await shown(page), "again generated_response");
  },
};

// A browser that hangs is ended by the test that started this.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  await cases[name](await browser.newContext(), browser);
  assert.deepEqual(problems, []);
} finally {
  await browser.close();
}
