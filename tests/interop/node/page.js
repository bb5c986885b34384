// The broker's page in Chromium.
//
// usage: page.js ADDRESS CASE CHROMIUM [TOKEN...]
//
// Exits with 0 if the case holds. The line `drain`, on stdout, asks the caller to end the broker. With
// FANFARE_SCREENSHOTS=DIRECTORY in the environment, pictures are kept there for people to look at.

import assert from 'node:assert/strict';
import path from 'node:path';
import { chromium } from 'playwright-core';

// Far above what anything here takes on a busy machine.
const PATIENCE_MS = 60_000;
const [address, name, executablePath, ...tokens] = process.argv.slice(2);
const url = `http://${address}/`;

const LIGHT = { viewport: { width: 1280, height: 900 }, colorScheme: 'light' };
const DARK = { ...LIGHT, colorScheme: 'dark' };
const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };

let browser;

/** The page, open, and whatever it complains of. */
async function open(options = LIGHT) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.complaints = [];
  page.requests = [];
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('dialog', (dialog) => {
    page.complaints.push(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('console', (said) => {
    // Statuses that the page knows what to do with are errors to the console.
    if (said.type() === 'error' && !said.text().startsWith('Failed to load resource')) {
      page.complaints.push(said.text());
    }
  });
  page.on('request', (request) => page.requests.push(request.url()));
  await page.goto(url);
  return page;
}

async function keepPicture(page, of) {
  const directory = process.env.FANFARE_SCREENSHOTS;
  if (directory) await page.screenshot({ path: path.join(directory, `${of}.png`), fullPage: true });
}

/** Waits until the text of what is found is this, or matches this. */
async function shows(locator, wanted) {
  const is = (text) => (wanted instanceof RegExp ? wanted.test(text) : text === wanted);
  const until = Date.now() + PATIENCE_MS;
  let seen;
  do {
    seen = (await locator.textContent()) ?? '';
    if (is(seen.trim())) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  } while (Date.now() < until);
  assert.fail(`it shows ${JSON.stringify(seen)} and not ${wanted}`);
}

/** Publishes over HTTP, beside the page. */
async function publish(topic, body, headers = {}) {
  const answer = await fetch(`${url}v1/topics/${encodeURIComponent(topic)}`, { method: 'POST', body, headers });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

/** What would leave if nobody held it. */
const readers = [];

/** A live reader, until the broker or the case ends. */
async function subscribe(filter, parameters = {}) {
  const query = new URLSearchParams({ topic: filter, ...parameters });
  const answer = await fetch(`${url}v1/events?${query}`);
  assert.equal(answer.status, 200);
  readers.push(answer);
}

const row = (page, table, text) => page.locator(`#${table}-table tbody tr`).filter({ hasText: text });

const cases = {
  async shows_what_happens() {
    const page = await open();
    await shows(page.locator('#status'), 'live');
    await shows(page.locator('#subscribers-count'), '0');
    await subscribe('orders.*', { overflow: 'drop_oldest', mailbox: '77' });
    await shows(page.locator('#subscribers-count'), '1');
    await shows(row(page, 'subscribers', 'orders.*'), /0 of 77.*drop oldest.*127\.0\.0\.1/);

    await page.getByLabel('Topic or filter').fill('orders.>');
    await page.getByRole('button', { name: 'Start' }).click();
    await shows(page.locator('#tail-status'), 'listening to orders.>');
    await page.getByLabel('Topic', { exact: true }).fill('orders.eu');
    await page.getByLabel('Payload').fill('42 sprockets');
    await page.getByLabel('Tag').fill('paid');
    await page.getByRole('button', { name: 'Publish' }).click();
    await shows(page.locator('#publish-status'), 'orders.eu 1: 2 of 2 got it');
    await shows(page.locator('#tail li').first(), /^orders\.eu 1 · [0-9:.]+ · tag paid.*42 sprockets$/);
    await shows(row(page, 'topics', 'orders.eu').locator('td').nth(2), '2');
    await keepPicture(page, 'light');
    await page.getByLabel('Payload').fill('größer');
    await page.getByLabel('Tag').fill('bezahlt-ü');
    await page.getByLabel('Key', { exact: true }).fill('日本 🦀');
    await page.getByRole('button', { name: 'Publish' }).click();
    await shows(page.locator('#publish-status'), 'orders.eu 2: 2 of 2 got it');
    await shows(page.locator('#tail li').first(), /^orders\.eu 2 · [0-9:.]+ · tag bezahlt-ü · key 日本 🦀.*größer$/);

    const pace = setInterval(() => publish('orders.eu', 'again').catch(() => {}), 20);
    await shows(page.locator('#in'), /^[1-9]/);
    await shows(page.locator('#out'), /^[1-9]/);
    clearInterval(pace);
    await page.getByRole('button', { name: 'Stop' }).click();
    await shows(page.locator('#tail-status'), 'stopped');
    await shows(page.locator('#subscribers-count'), '1');

    await page.getByLabel('Topic', { exact: true }).fill('a..b');
    await page.getByRole('button', { name: 'Publish' }).click();
    await shows(page.locator('#publish-status'), 'not published: topic has an empty token at byte 2');
    return page;
  },

  async shows_text_as_text() {
    const evil = `<img/src=x/onerror=alert(1)>`;
    const script = '<script>document.title="taken"</script><svg onload=alert(2)>"\'`&amp;';
    const turned = 'rtl.\u202egnp.exe';
    const page = await open();
    await subscribe(`${evil}.>`, { tag: evil });
    await page.getByLabel('Topic or filter').fill('>');
    await page.getByRole('button', { name: 'Start' }).click();
    await shows(page.locator('#tail-status'), 'listening to >');
    const headers = { 'fanfare-tag': evil, 'fanfare-key': evil, 'fanfare-attribute-x': script };
    await publish(`${evil}.a`, script, headers);
    await publish(turned, Buffer.from([0xff, 0x3c]));
    const [binary, text] = [page.locator('#tail li').nth(0), page.locator('#tail li').nth(1)];
    await shows(text.locator('.topic'), `${evil}.a`);
    await shows(text.locator('.payload'), script);
    for (const part of [`tag ${evil}`, `key ${evil}`, `x=${script}`]) {
      assert((await text.locator('.about').textContent()).includes(part), part);
    }
    // A name that reads from right to left shows how it does that.
    await shows(binary.locator('.topic'), 'rtl.\\u202egnp.exe');
    await shows(binary.locator('.payload'), 'base64: /zw=');
    await shows(row(page, 'topics', `${evil}.a`).locator('td').first(), `${evil}.a`);
    await shows(row(page, 'topics', 'rtl.').locator('td').first(), 'rtl.\\u202egnp.exe');
    await shows(row(page, 'subscribers', evil).locator('td').first(), `${evil}.> [${evil}]`);
    // Taken at its word, too, where it is put into an attribute and into a field.
    await row(page, 'topics', `${evil}.a`).getByRole('button', { name: `Tail ${evil}.a` }).click();
    await shows(page.locator('#tail-status'), `listening to ${evil}.a`);
    await page.getByLabel('Topic', { exact: true }).fill(`${evil}..`);
    await page.getByRole('button', { name: 'Publish' }).click();
    await shows(page.locator('#publish-status'), /^not published: /);

    const markup = await page.evaluate(() => ({
      images: document.querySelectorAll('img, svg[onload], iframe, object, body script:not(:last-of-type)').length,
      scripts: document.scripts.length,
      title: document.title,
    }));
    assert.deepEqual(markup, { images: 0, scripts: 1, title: 'Fanfare' });
    // And if some text became markup one day, the browser would not run it.
    const ran = await page.evaluate(() => {
      const made = document.createElement('script');
      made.textContent = 'globalThis.ran = true';
      document.body.append(made);
      made.remove();
      return globalThis.ran === true;
    });
    assert.equal(ran, false);
    page.complaints = page.complaints.filter((said) => !said.includes('Content Security Policy'));
    for (const asked of page.requests) assert(asked.startsWith(url) || asked === 'data:,', asked);
    return page;
  },

  async is_readable_with_a_thousand_topics() {
    await subscribe('>');
    const names = Array.from({ length: 1000 }, (_, index) => `orders.region-${index % 7}.item-${index}`);
    for (const topic of [...names, 'a'.repeat(255)]) await publish(topic, 'x');
    for (const [of, options] of Object.entries({ LIGHT, DARK, PHONE, PHONE_DARK: { ...PHONE, colorScheme: 'dark' } })) {
      const page = await open(options);
      await shows(page.locator('#topics-shown'), '50 of 1,001 topics');
      assert.equal(await page.locator('#topics-table tbody tr').count(), 50);
      const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert(width <= 0, `${of}: ${width} pixels are beside the screen`);
      const [contrast, what] = await page.evaluate(leastContrast);
      assert(contrast >= 4.5, `${of}: ${what} has a contrast of ${contrast} only`);
      await keepPicture(page, `thousand-${of.toLowerCase()}`);
      await page.getByLabel('Search').first().fill('item-99');
      await shows(page.locator('#topics-shown'), '11 topics found among 1,001');
      await page.getByLabel('Sort by').selectOption('name');
      await shows(page.locator('#topics-table tbody tr').first().locator('td').first(), 'orders.region-0.item-994');
      assert.deepEqual(page.complaints, []);
      await page.context().close();
    }
  },

  async works_by_keyboard() {
    await subscribe('>');
    await publish('orders.eu', 'x');
    const page = await open();
    await shows(page.locator('#topics-shown'), '1 topic');
    // Everything that can be focused has a name, and shows that it is focused.
    const stops = [];
    for (let stop = 0; stop < 40; stop += 1) {
      await page.keyboard.press('Tab');
      const focused = await page.evaluate(() => {
        const at = document.activeElement;
        if (at === document.body) return null;
        const label = at.getAttribute('aria-label') ?? document.getElementById(at.getAttribute('aria-labelledby'))?.textContent
          ?? at.labels?.[0]?.textContent ?? at.textContent;
        const style = getComputedStyle(at);
        return { label: label.trim(), outlined: style.outlineStyle !== 'none' };
      });
      if (!focused) break;
      assert(focused.label && focused.outlined, JSON.stringify(focused));
      stops.push(focused.label);
    }
    for (const wanted of ['Skip to the topics', 'Search', 'Sort by', 'Tail orders.eu', 'Topic or filter', 'Start', 'Payload', 'Publish']) {
      assert(stops.includes(wanted), `${wanted} is not among ${stops}`);
    }
    await page.getByRole('button', { name: 'Tail orders.eu' }).focus();
    await page.keyboard.press('Enter');
    await shows(page.locator('#tail-status'), 'listening to orders.eu');
    await page.getByLabel('Topic', { exact: true }).focus();
    await page.keyboard.type('orders.eu');
    await page.keyboard.press('Tab');
    await page.keyboard.type('by hand');
    await page.keyboard.press('Control+Enter');
    await shows(page.locator('#tail li').first().locator('.payload'), 'by hand');
    // A row that is focused keeps the focus while the table goes on.
    await page.getByRole('button', { name: 'Tail orders.eu' }).focus();
    await publish('another', 'x');
    await shows(page.locator('#topics-shown'), '2 topics');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Tail');
    return page;
  },

  async says_when_the_broker_is_gone() {
    const page = await open();
    await page.getByLabel('Topic or filter').fill('t');
    await page.getByRole('button', { name: 'Start' }).click();
    await shows(page.locator('#tail-status'), 'listening to t');
    console.log('drain');
    await shows(page.locator('#status'), 'no answer, trying again');
    await shows(page.locator('#tail li').first(), /^closed: .*shutting down/);
    await shows(page.locator('#tail-status'), 'the broker has ended the stream');
    await page.getByLabel('Topic', { exact: true }).fill('t');
    await page.getByRole('button', { name: 'Publish' }).click();
    await shows(page.locator('#publish-status'), /^not published: /);
    return page;
  },

  async asks_for_a_token() {
    const [alice, bob] = tokens;
    const page = await open();
    const reason = page.locator('#access-reason');
    await shows(reason, 'The broker asks who you are.');
    await keepPicture(page, 'token');
    assert(await page.locator('#main').isHidden());
    for (const [token, told] of [
      ['wrong', 'the credentials are not valid'],
      [bob, 'user `bob` may not use metrics'],
    ]) {
      await page.getByLabel('Token').fill(token);
      await page.keyboard.press('Enter');
      await shows(reason, told);
    }
    await page.getByLabel('Token').fill(alice);
    await page.keyboard.press('Enter');
    await shows(page.locator('#status'), 'live');
    assert(await page.locator('#access').isHidden());
    // The tail and the publish box show it, too.
    await page.getByLabel('Topic or filter').fill('t');
    await page.getByRole('button', { name: 'Start' }).click();
    await shows(page.locator('#tail-status'), 'listening to t');
    await page.getByLabel('Topic', { exact: true }).fill('t');
    await page.getByLabel('Payload').fill('hello');
    await page.getByRole('button', { name: 'Publish' }).click();
    await shows(page.locator('#tail li .payload').first(), 'hello');
    // It is kept for this tab, and shown in no address.
    await page.reload();
    await shows(page.locator('#status'), 'live');
    for (const asked of page.requests) assert(!asked.includes(alice), asked);
    await page.getByRole('button', { name: 'Forget the token' }).click();
    await shows(reason, 'The broker asks who you are.');
    await page.reload();
    await shows(reason, 'The broker asks who you are.');
    return page;
  },
};

/** The least contrast of any text with what lies behind it (WCAG 2.1, 1.4.3), and what has it. */
function leastContrast() {
  const rgb = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let least = [Infinity, ''];
  for (const element of document.querySelectorAll('body *')) {
    const said = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!said.length || !element.checkVisibility() || element.closest('script, style, noscript, .unseen, .skip')) continue;
    const pair = [luminance(rgb(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < least[0]) least = [contrast, element.textContent.trim().slice(0, 40)];
  }
  return least;
}

browser = await chromium.launch({
  executablePath,
  timeout: PATIENCE_MS,
  // Chromium's sandbox does not work for root, nor where the system forbids user namespaces. What is opened is ours.
  args: ['--no-sandbox'],
});
try {
  const page = await cases[name]();
  if (page) assert.deepEqual(page.complaints, []);
} finally {
  await browser.close();
}
// Readers that the case has left open.
process.exit();
