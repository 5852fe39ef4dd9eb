"""What is wrong with an open page, measured in the browser on the laid-out page.

axe-core judges contrast, names and structure. The rest is ours: overflow, and in charts text over text, text without
contrast (axe-core does not look into SVG) and series that cannot be told apart.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

MIN_CONTRAST = 4.5
"""WCAG 2.2, criterion 1.4.3, for text of ordinary size."""
MIN_SERIES_CONTRAST = 3.0
"""WCAG 2.2, criterion 1.4.11, for graphics."""
AXE_OPTIONS = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}

_MEASURE = """
([width, minText, minSeries]) => {
  const found = [];
  const describe = (e) => {
    const text = (e.textContent || '').trim().replace(/\\s+/g, ' ').slice(0, 40);
    return `<${e.tagName.toLowerCase()}${e.id ? '#' + e.id : ''}> "${text}"`;
  };
  const shown = (e) => e.checkVisibility({visibilityProperty: true, opacityProperty: true});

  const root = document.scrollingElement;
  if (root.scrollWidth > width) {
    const scrolls = (e) => { for (let p = e.parentElement; p; p = p.parentElement)
      if (p !== root && getComputedStyle(p).overflowX !== 'visible') return true; return false; };
    const wide = [...document.body.querySelectorAll('*')].filter(
      (e) => shown(e) && e.getBoundingClientRect().right > width + 1 && !scrolls(e));
    found.push(`the page is ${root.scrollWidth} pixels wide in a window of ${width}: `
      + wide.slice(-3).map(describe).join(', '));
  }

  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, bottom) => [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const probe = document.body.appendChild(document.createElement('i'));
  probe.style.backgroundColor = 'Canvas';
  const paper = rgba(getComputedStyle(probe).backgroundColor);
  probe.remove();
  const ground = (e) => {
    const layers = [];
    for (let p = e; p; p = p.parentElement) {
      layers.push(rgba(getComputedStyle(p).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((bottom, top) => over(top, bottom), paper);
  };
  const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };

  for (const chart of document.querySelectorAll('figure')) {
    const name = chart.getAttribute('aria-label') || describe(chart);
    const texts = [...chart.querySelectorAll('text, [data-label]')].filter((e) => shown(e) && e.textContent.trim());
    const boxes = texts.map((e) => e.getBoundingClientRect());
    for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
      if (texts[i].contains(texts[j]) || texts[j].contains(texts[i])) continue;
      const across = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
      const down = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
      if (across > 1 && down > 2) found.push(`${name}: ${describe(texts[i])} lies over ${describe(texts[j])}`);
    }
    for (const [i, box] of boxes.entries())
      if (box.left < -1 || box.right > width + 1) found.push(`${name}: ${describe(texts[i])} is cut off`);
    for (const text of chart.querySelectorAll('text')) {
      const ratio = contrast(over(rgba(getComputedStyle(text).fill), ground(chart)), ground(chart));
      if (ratio < minText) found.push(`${name}: ${describe(text)} has a contrast of ${ratio.toFixed(1)}`);
    }
    const colours = new Map();
    for (const mark of chart.querySelectorAll('[data-series]')) {
      const style = getComputedStyle(mark);
      const paint = style.stroke && style.stroke !== 'none' ? style.stroke
        : mark instanceof SVGElement ? style.fill : style.backgroundColor;
      const colour = over(rgba(paint), ground(chart));
      const ratio = contrast(colour, ground(chart));
      const series = mark.dataset.series;
      if (ratio < minSeries) found.push(`${name}: series ${series} has a contrast of ${ratio.toFixed(1)}`);
      const key = `${colour.slice(0, 3).map(Math.round)} ${style.strokeDasharray}`;
      if (colours.has(key) && colours.get(key) !== series)
        found.push(`${name}: series ${series} looks like ${colours.get(key)}`);
      colours.set(key, series);
    }
  }
  return [...new Set(found)];
}
"""


def judge(page: "Page", width: int) -> list[str]:
    """Return the problems of a page in a window of `width` CSS pixels, each as one line."""
    found: list[str] = page.evaluate(_MEASURE, [width, MIN_CONTRAST, MIN_SERIES_CONTRAST])
    return found + _judge_accessibility(page)


def _judge_accessibility(page: "Page") -> list[str]:
    from axe_playwright_python.sync_playwright import Axe

    answer: dict[str, Any] = Axe().run(page, options=AXE_OPTIONS).response
    return [
        f"accessibility, {violation['id']}: {violation['help']}: {node['html'][:120]}"
        for violation in answer["violations"]
        for node in violation["nodes"]
    ]
