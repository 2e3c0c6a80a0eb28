// Drives Chromium for tests. Each line of standard input is a command in JSON; each is answered by a line of JSON on standard output, with
// "error" if it failed. Nothing secret is in the arguments. The browser ends with the input.
//
//   {"do": "launch", "executable": "/usr/bin/chromium", "trust": ["SPKI hash in base64", …]}
//   {"do": "context", "page": "owner", "width": 390, "height": 844, "scripts": false, "dark": false}    a browser of its own, by that name
//   {"do": "open", "page": "owner", "url": "https://…"}
//   {"do": "click", "page": "owner", "role": "button", "name": "Continue to Acme"}
//   {"do": "select", "page": "owner", "label": "Account", "value": "ann@people.test"}
//   {"do": "press", "page": "owner", "key": "Tab"}
//   {"do": "type", "page": "owner", "text": "ann"}    into what has the focus
//   {"do": "shot", "page": "owner", "file": "/tmp/x.png"}
//   {"do": "look", "page": "owner"}
//
// A click, and the key Enter, have to lead to another page. Every command that names a page answers how that page stands: url, status, title, text, focus, wide (it scrolls sideways), smallest (font
// size in px), history (URLs), asked (each request: method, url, referer), and complaints (console errors and failed requests).

import readline from 'node:readline';
import { chromium } from 'playwright-core';

const timeout = 120_000;
let browser;
const pages = new Map();

function watch(page) {
  const seen = { asked: [], complaints: [], status: 0 };
  page.on('request', (r) => seen.asked.push({ method: r.method(), url: r.url(), referer: r.headers().referer ?? '' }));
  page.on('response', (r) => {
    if (r.request().isNavigationRequest() && r.frame() === page.mainFrame()) seen.status = r.status();
  });
  page.on('console', (m) => {
    if (m.type() === 'error') seen.complaints.push(m.text());
  });
  return seen;
}

async function history(page) {
  const session = await page.context().newCDPSession(page);
  const { entries } = await session.send('Page.getNavigationHistory');
  await session.detach();
  return entries.map((e) => e.url);
}

// leading does what leads to another page, and waits for that.
async function leading(page, act) {
  await Promise.all([page.waitForEvent('framenavigated', { predicate: (f) => f === page.mainFrame(), timeout }), act()]);
  await page.waitForLoadState('load', { timeout });
}

async function standing({ page, seen }) {
  const inside = await page.evaluate(() => {
    const shown = [...document.querySelectorAll('body *')].filter((e) => e.innerText && e.getClientRects().length);
    return {
      text: document.body?.innerText ?? '',
      focus: document.activeElement?.innerText || document.activeElement?.tagName || '',
      wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
      smallest: Math.min(...shown.map((e) => parseFloat(getComputedStyle(e).fontSize))),
    };
  });
  return { url: page.url(), title: await page.title(), status: seen.status, history: await history(page), asked: seen.asked, complaints: seen.complaints, ...inside };
}

const commands = {
  async launch({ executable, trust }) {
    browser = await chromium.launch({
      executablePath: executable,
      timeout,
      args: [`--ignore-certificate-errors-spki-list=${trust.join(',')}`, '--disable-gpu', '--disable-dev-shm-usage'],
    });
  },
  async context({ page: name, width = 1280, height = 900, scripts = true, dark = false }) {
    const context = await browser.newContext({ viewport: { width, height }, javaScriptEnabled: scripts, colorScheme: dark ? 'dark' : 'light' });
    const page = await context.newPage();
    page.setDefaultTimeout(timeout);
    pages.set(name, { page, seen: watch(page) });
  },
  async open(at, { url }) {
    await at.page.goto(url, { timeout });
  },
  async click(at, { role, name }) {
    await leading(at.page, () => at.page.getByRole(role, { name }).click());
  },
  async select(at, { label, value }) {
    await at.page.getByLabel(label).selectOption(value);
  },
  async press(at, { key }) {
    if (key === 'Enter') await leading(at.page, () => at.page.keyboard.press(key));
    else await at.page.keyboard.press(key);
  },
  async type(at, { text }) {
    await at.page.keyboard.type(text);
  },
  async shot(at, { file }) {
    await at.page.screenshot({ path: file, fullPage: true });
  },
  async look() {},
};

async function run(command) {
  if (command.do === 'launch' || command.do === 'context') {
    await commands[command.do](command);
    return {};
  }
  const at = pages.get(command.page);
  await commands[command.do](at, command);
  return standing(at);
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await run(JSON.parse(line));
  } catch (e) {
    answer = { error: String(e.message ?? e) };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}
await browser?.close();
