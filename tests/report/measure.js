// Measures the texts of a page by their boxes, and tells the page around it what is wrong with them.

// In pixels as they are shown.
const SMALLEST_TEXT = 10;
// WCAG 2.2, 1.4.3.
const LEAST_CONTRAST = 4.5;
// Boxes of glyphs have room at all sides.
const TOUCH = 1;

function luminance(colour) {
    const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map(Number).map(value => {
        const part = value / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one, other) {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
}

function overlap(a, b) {
    return Math.min(a.right, b.right) - Math.max(a.left, b.left) > TOUCH
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > TOUCH;
}

function problemsOfPlot(svg) {
    const problems = [];
    const frame = svg.getBoundingClientRect();
    const paper = getComputedStyle(svg.querySelector("rect")).fill;
    const scale = frame.width / svg.viewBox.baseVal.width;
    const texts = [...svg.querySelectorAll("text")].map(element => ({
        text: element.textContent.trim(),
        box: element.getBoundingClientRect(),
        style: getComputedStyle(element),
    }));
    texts.forEach(({ text, box, style }, index) => {
        if (box.left < frame.left || box.right > frame.right
            || box.top < frame.top || box.bottom > frame.bottom) {
            problems.push(`${text}: cut off`);
        }
        const size = parseFloat(style.fontSize) * scale;
        if (size < SMALLEST_TEXT) {
            problems.push(`${text}: only ${size.toFixed(1)} pixels high`);
        }
        if (contrast(style.fill, paper) < LEAST_CONTRAST) {
            problems.push(`${text}: too pale, ${style.fill} on ${paper}`);
        }
        for (const other of texts.slice(index + 1)) {
            if (overlap(box, other.box)) {
                problems.push(`${text}: overlaps ${other.text}`);
            }
        }
    });
    // What is drawn without a box of its own: bars and samples of the legend.
    for (const shape of svg.querySelectorAll("rect:not(:first-of-type)")) {
        const box = shape.getBoundingClientRect();
        if (box.right > frame.right || box.bottom > frame.bottom) {
            problems.push("a bar is cut off");
        }
        for (const { text, box: other } of texts) {
            if (overlap(box, other)) {
                problems.push(`${text}: on a bar`);
            }
        }
    }
    return { problems, texts: texts.length };
}

// The page may be scrolled down and, in its table, aside, but not as a whole aside.
function problemsOfPage() {
    const problems = [];
    const page = document.documentElement;
    if (page.scrollWidth > page.clientWidth) {
        problems.push(`the page is ${page.scrollWidth} pixels wide`);
    }
    for (const element of document.querySelectorAll("p, h1, h2, dt, dd, figcaption, pre")) {
        if (element.scrollWidth > element.clientWidth + TOUCH) {
            problems.push(`${element.textContent.slice(0, 40)}: cut off`);
        }
    }
    const background = getComputedStyle(document.body).backgroundColor;
    const ink = getComputedStyle(document.body).color;
    if (background !== "rgba(0, 0, 0, 0)" && contrast(ink, background) < LEAST_CONTRAST) {
        problems.push(`too pale: ${ink} on ${background}`);
    }
    return problems;
}

addEventListener("load", () => {
    const plots = [...document.querySelectorAll("svg")];
    const measured = plots.map(problemsOfPlot);
    const problems = [...problemsOfPage(), ...measured.flatMap(plot => plot.problems)];
    const texts = measured.reduce((sum, plot) => sum + plot.texts, 0);
    const paper = getComputedStyle(plots[0].querySelector("rect")).fill;
    const colours = luminance(paper) > 0.5 ? "light" : "dark";
    const verdict = problems.length === 0 && texts > 0
        ? "fine"
        : `${problems.length} problems: ${problems.slice(0, 20).join("; ")}`;
    parent.postMessage(`${colours}, ${plots.length} plots, ${texts} texts: ${verdict}`, "*");
});
