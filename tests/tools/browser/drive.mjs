// Drives a headless Chromium over pages of the bridge and prints what it saw as JSON. What is right is decided by tests/suite/page/browser.rs.
//
//   node drive.mjs look URL FOLDER PATH...   every path in light and dark, with scripts and without: console, requests, axe, a picture
//   node drive.mjs use URL PATH TEXT         searches TEXT by keyboard alone, copies the script of the host at PATH
//   node drive.mjs watch URL PATH SECONDS    what the progress bars show while they move, and that the page is not loaded anew
import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const [mode, base, ...rest] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // Root in a container has no sandbox; a QUIC or update request of its own would not be the page's.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"],
});

// A page that notes everything that goes wrong on it.
async function open(scheme, scripts) {
  const page = await browser.newPage();
  const seen = { console: [], foreign: [], failed: [] };
  await page.setViewport({ width: 1280, height: 900 });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setJavaScriptEnabled(scripts);
  page.on("console", (message) => ["error", "warn"].includes(message.type()) && seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(String(error)));
  page.on("request", (request) => new URL(request.url()).origin !== base && seen.foreign.push(request.url()));
  page.on("response", (response) => response.status() >= 400 && seen.failed.push(`${response.status()} ${response.url()}`));
  page.on("requestfailed", (request) => seen.failed.push(`${request.failure().errorText} ${request.url()}`));
  return [page, seen];
}

async function look(folder, paths) {
  const results = [];
  mkdirSync(folder, { recursive: true });
  for (const scheme of ["light", "dark"]) {
    for (const scripts of [true, false]) {
      for (const [index, path] of paths.entries()) {
        const [page, seen] = await open(scheme, scripts);
        await page.goto(base + path, { waitUntil: "load" });
        const text = await page.evaluate(() => document.body.innerText);
        const html = await page.content();
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        // Evaluated by the debugger: no policy of the page stands in its way. What axe waits for needs scripts; the page's own are not
        // made up for by turning them on now.
        await page.setJavaScriptEnabled(true);
        await page.evaluate(axe);
        const found = await page.evaluate(() => axe.run());
        const violations = found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 3).join(", ")}`);
        await page.screenshot({ path: join(folder, `${index}-${scheme}${scripts ? "" : "-plain"}.png`), fullPage: true });
        results.push({ path, scheme, scripts, ...seen, violations, overflow, checks: found.passes.length, text, html });
        await page.close();
      }
    }
  }
  return results;
}

async function use(path, text) {
  const [page, seen] = await open("light", true);
  await browser.defaultBrowserContext().overridePermissions(base, ["clipboard-read", "clipboard-write"]);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
  await page.goto(`${base}/`);
  await page.keyboard.press("Tab");
  const first = await focused();
  await page.keyboard.press("Enter");
  const skipped = await page.evaluate(() => location.hash);
  await page.goto(`${base}/`);
  const stops = [];
  for (let stop = 0; stop < 4 && stops.at(-1) !== "q"; stop++) {
    await page.keyboard.press("Tab");
    stops.push(await focused());
  }
  await page.keyboard.type(text);
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  const found = await page.$$eval("tbody th[scope=row] a", (links) => links.map((link) => link.textContent));
  await page.goto(base + path);
  await page.click("button[data-copy]");
  await page.waitForFunction(() => document.querySelector("[data-copied]").textContent !== "");
  const told = await page.$eval("[data-copied]", (element) => element.textContent);
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  const shown = await page.$eval("#script-text", (element) => element.textContent);
  return { first, skipped, stops, found, told, copied, shown, ...seen };
}

async function watch(path, seconds) {
  const [page, seen] = await open("light", true);
  await page.goto(base + path, { waitUntil: "domcontentloaded" });
  await page.evaluate(() => { window.isSamePage = true; });
  const values = [];
  const ends = Date.now() + seconds * 1000;
  let outcome = "";
  while (Date.now() < ends) {
    const now = await page.evaluate(() => ({
      values: [...document.querySelectorAll("#boots progress")].map((bar) => bar.value),
      outcome: document.querySelector("#boots [data-outcome]")?.textContent ?? "",
    }));
    outcome = now.outcome;
    const last = now.values.at(-1);
    if (last !== undefined && last !== values.at(-1)) values.push(last);
    if (values.length > 0 && outcome !== "" && outcome !== "Running") break;
    await new Promise((done) => setTimeout(done, 100));
  }
  const isSamePage = await page.evaluate(() => window.isSamePage === true);
  return { values, outcome, isSamePage, ...seen };
}

try {
  const result = await { look: () => look(rest[0], rest.slice(1)), use: () => use(...rest), watch: () => watch(rest[0], Number(rest[1])) }[mode]();
  console.log(JSON.stringify(result));
} finally {
  await browser.close();
}
