/*
 * Part of the browser tests' own stand-in for LuCI's client: the globals that views take for
 * granted. Written from how LuCI's interface behaves, not from its source.
 *
 *   _()       translation; `TR` is filled by the page from the catalogue under test
 *   N_()      the same for plurals, by the Germanic rule
 *   format()  on strings: %s %d %f %h %% and a precision
 */
'use strict';

window.TR = window.TR || {};

window._ = function(text) {
	return TR[text.trim()] || text;
};

window.N_ = function(n, one, many) {
	return _(n == 1 ? one : many);
};

function escapeMarkup(text) {
	return text.replace(/[&<>"']/g, (c) => '&#' + c.charCodeAt(0) + ';');
}

Object.defineProperty(String.prototype, 'format', {
	value: function(...args) {
		let next = 0;

		return this.replace(/%(?:\.(\d+))?([%sdfh])/g, (whole, precision, kind) => {
			if (kind == '%')
				return '%';

			const arg = args[next++];

			switch (kind) {
			case 'd': return String(Math.floor(+arg || 0));
			case 'f': return precision ? (+arg || 0).toFixed(+precision) : String(+arg || 0);
			case 'h': return escapeMarkup(String(arg ?? ''));
			default: return String(arg);
			}
		});
	}
});
