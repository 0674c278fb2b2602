/*
 * Runs in a page: every visible text whose contrast with what lies behind it is below WCAG's
 * AA (4.5, large text 3), as lines. Colours are composed with all opacities on the way up.
 * Disabled controls are exempt, as WCAG has it.
 */
'use strict';

const painter = document.createElement('canvas').getContext('2d', { willReadFrequently: true });

/* Any CSS colour as [r, g, b, a]: the browser itself reads it. */
function colour(css) {
	painter.clearRect(0, 0, 1, 1);
	painter.fillStyle = css;
	painter.fillRect(0, 0, 1, 1);
	const [ r, g, b, a ] = painter.getImageData(0, 0, 1, 1).data;
	return [ r, g, b, a / 255 ];
}

function over(top, below) {
	return [ 0, 1, 2 ].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat([ 1 ]);
}

function luminance(c) {
	const [ r, g, b ] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
	return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function ratio(a, b) {
	const [ high, low ] = [ luminance(a), luminance(b) ].sort((x, y) => y - x);
	return (high + 0.05) / (low + 0.05);
}

/* The page's colour behind an element, and how much of the element is seen. */
function ground(element) {
	const chain = [];
	for (let at = element; at; at = at.parentElement)
		chain.unshift(at);

	const dark = document.documentElement.getAttribute('data-darkmode') == 'true';
	let behind = dark ? [ 0, 0, 0, 1 ] : [ 255, 255, 255, 1 ], seen = 1;
	for (const at of chain) {
		const style = getComputedStyle(at);
		const [ r, g, b, a ] = colour(style.backgroundColor);
		seen *= +style.opacity;
		behind = over([ r, g, b, a * seen ], behind);
	}
	return { behind, seen };
}

/* What fades in has arrived. */
document.getAnimations().forEach((one) => one.finish());

const found = [];
const walker = document.createTreeWalker(document.getElementById('view'), NodeFilter.SHOW_TEXT);
let looked = 0;

while (walker.nextNode()) {
	const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
	if (text == '' || !element.checkVisibility() || element.closest(':disabled, option, .agentmon-hidden, svg'))
		continue;

	const style = getComputedStyle(element), { behind, seen } = ground(element);
	const [ r, g, b, a ] = colour(style.color);
	const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
	const got = ratio(over([ r, g, b, a * seen ], behind), behind);

	looked++;
	if (got < (large ? 3 : 4.5))
		found.push(got.toFixed(2) + ' ' + element.localName + '.' + element.className + ': ' + text.slice(0, 40));
}

return { looked, found };
