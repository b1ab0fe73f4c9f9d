// Looks for accessibility faults with axe-core in Chromium.
// node axe.mjs NODE_MODULES CHROMIUM PAGE...   prints [{page, width, dark, violations}] as JSON.
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, executablePath, ...pages] = process.argv.slice(2);
const require = createRequire(pathToFileURL(join(modules, "any.js")));
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--disable-dev-shm-usage"],
});
const found = [];
for (const page of pages) {
  for (const [width, dark] of [[1280, false], [1280, true], [390, false]]) {
    const context = await browser.newContext({
      viewport: { width, height: 900 }, colorScheme: dark ? "dark" : "light", bypassCSP: true, offline: true,
    });
    const tab = await context.newPage();
    await tab.goto(pathToFileURL(page).href);
    await tab.evaluate(() => document.querySelectorAll("details").forEach(part => { part.open = true; }));
    await tab.evaluate(axe.source);
    const result = await tab.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    const violations = result.violations.map(one => ({
      id: one.id, impact: one.impact, help: one.help, nodes: one.nodes.slice(0, 5).map(node => node.html.slice(0, 160)),
    }));
    found.push({ page, width, dark, violations, passes: result.passes.length });
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(found));
