'use strict';
'require baseclass';
'require agentmon.text as text';

/*
 * The parts the views are built of. Data becomes text nodes only: children are always
 * handed over as an array, because LuCI's E() reads a bare string as markup.
 */

const SVG = 'http://www.w3.org/2000/svg';

/* Words beside the colour, and a sign for those who see neither. */
const SIGNS = { good: '✓', warn: '!', bad: '✕', off: '–' };

/* How alarming each severity looks. */
const LEVELS = { critical: 'bad', high: 'bad', medium: 'warn', low: 'off', info: 'off' };

function svg(name, attributes) {
	const node = document.createElementNS(SVG, name);

	for (const key in attributes)
		node.setAttribute(key, attributes[key]);

	return node;
}

return baseclass.extend({
	/* A page's outermost element. The style sheet is put into the head once: as a part of
	   what is drawn anew at every poll it would be read anew, and the page flicker. */
	page(children) {
		const id = 'agentmon-style';

		if (document.getElementById(id) == null)
			document.head.appendChild(E('link', { 'id': id, 'rel': 'stylesheet', 'href': L.resource('agentmon/agentmon.css') }));

		return E('div', { 'class': 'agentmon' }, children);
	},

	section(title, children, id) {
		const heading = (id || 'agentmon') + '-title';

		return E('section', { 'class': 'cbi-section', 'id': id || null, 'aria-labelledby': id ? heading : null }, [
			E('h3', { 'id': id ? heading : null }, [ title ])
		].concat(children));
	},

	/* Text of a foreign value; what does not fit is in the tooltip. */
	value(raw, max) {
		const shown = text.clean(raw, max);

		if (shown === '')
			return E('span', { 'class': 'agentmon-minor' }, [ '–' ]);

		const whole = text.clean(raw, text.KEPT_MAX);
		return E('bdi', { 'title': (whole != shown) ? whole : null }, [ shown ]);
	},

	badge(level, label) {
		return E('span', { 'class': 'agentmon-badge', 'data-level': level }, [
			E('span', { 'aria-hidden': 'true' }, [ (SIGNS[level] || '') + ' ' ]), label
		]);
	},

	severity(word) {
		return this.badge(LEVELS[word] || 'warn', text.severity(word));
	},

	/* One message in place of data, or above stale data. */
	notice(kind, title, lines) {
		return E('div', { 'class': 'alert-message ' + kind, 'role': (kind == 'notice') ? 'status' : 'alert' }, [
			E('h4', {}, [ title ])
		].concat(lines.map((line) => E('p', {}, Array.isArray(line) ? line : [ line ]))));
	},

	empty(message) {
		return E('p', { 'class': 'agentmon-empty' }, [ E('em', {}, [ message ]) ]);
	},

	/*
	 * columns: [{ title, number, wide, sort }]; rows: arrays of nodes or texts, one a column.
	 * A row may carry `.attributes` for its tr. `caption` is for those who do not see.
	 */
	table(caption, columns, rows, headings) {
		const title = (column) => E('th', {
			'class': 'th' + (column.number ? ' agentmon-number' : ''),
			'role': 'columnheader', 'scope': 'col', 'aria-sort': column.sort || null
		}, [ (headings && headings[column.title]) || column.title ]);

		const cell = (content, column) => E('td', {
			'class': 'td' + (column.number ? ' agentmon-number' : '') + (column.wide ? ' agentmon-wide' : ''),
			'role': 'cell', 'data-title': column.title
		}, [ content ]);

		const row = (cells) => E('tr', Object.assign({ 'class': 'tr', 'role': 'row' }, cells.attributes),
			cells.map((content, i) => cell(content, columns[i])));

		return E('table', { 'class': 'table', 'role': 'table', 'aria-label': caption }, [
			E('tr', { 'class': 'tr table-titles', 'role': 'row' }, columns.map(title))
		].concat(rows.map(row)));
	},

	/* Pairs of a name and a value. */
	facts(caption, pairs) {
		return E('table', { 'class': 'table', 'role': 'table', 'aria-label': caption }, pairs.map((pair) =>
			E('tr', { 'class': 'tr', 'role': 'row' }, [
				E('td', { 'class': 'td left agentmon-name', 'role': 'rowheader' }, [ pair[0] ]),
				E('td', { 'class': 'td', 'role': 'cell' }, Array.isArray(pair[1]) ? pair[1] : [ pair[1] ])
			])));
	},

	/* A curve of values, oldest first. `label` says the same in words. */
	sparkline(values, label) {
		const width = 300, height = 60;
		const highest = Math.max(1, ...values);
		const step = width / Math.max(1, values.length - 1);
		const points = values.map((value, i) =>
			(i * step).toFixed(1) + ',' + (height - 1 - (height - 4) * (Math.max(0, value) / highest)).toFixed(1));

		const image = svg('svg', {
			'class': 'agentmon-spark', 'role': 'img', 'aria-label': label,
			'viewBox': '0 0 ' + width + ' ' + height, 'preserveAspectRatio': 'none'
		});
		const name = svg('title', {});
		name.appendChild(document.createTextNode(label));
		image.appendChild(name);
		image.appendChild(svg('line', { x1: 0, y1: height - 1, x2: width, y2: height - 1 }));

		if (points.length > 1) {
			image.appendChild(svg('polygon', { points: '0,' + height + ' ' + points.join(' ') + ' ' + width + ',' + height }));
			image.appendChild(svg('polyline', { points: points.join(' ') }));
		}

		return image;
	}
});
