'use strict';
'require baseclass';

/*
 * Values from the daemon as text for people. Everything here is pure: a value (and the
 * router's own time) in, a string out.
 *
 * Names of devices and domains are chosen by whoever is on the network. `clean` makes what
 * could disturb a reader visible (control characters, marks that turn the writing
 * direction, characters without width) and bounds the length; that a string never becomes
 * markup is the views' part: they hand text to E() in arrays only.
 */

/* C0, DEL, C1, soft hyphen, Arabic letter mark, zero width, direction marks and overrides,
   line and paragraph separators, invisible operators, byte order mark, interlinear marks. */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/* Before this the router's clock has not been set since it booted: 2020-01-01. */
const CLOCK_SET_MS = 1577836800000;

const UNITS = [ 'B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB' ];

function language() {
	const lang = document.documentElement.lang;

	try {
		return Intl.getCanonicalLocales(lang)[0];
	}
	catch (e) {
		return undefined;
	}
}

return baseclass.extend({
	/* Most characters of one value on the page, and in its tooltip. */
	SHOWN_MAX: 96,
	KEPT_MAX: 1024,

	/* A number, whatever came: JSON may hold a string or nothing. */
	number(value) {
		const n = Number(value);
		return (value != null && Number.isFinite(n)) ? n : 0;
	},

	clean(value, max) {
		if (value == null || typeof value == 'object')
			return '';

		const limit = max || this.SHOWN_MAX;
		/* Cut before the replacement, so that a value of megabytes costs nothing. */
		const head = String(value).slice(0, limit * 4).replace(UNSEEN, '\ufffd');
		const letters = Array.from(head);

		return (letters.length > limit) ? letters.slice(0, limit - 1).join('') + '…' : head;
	},

	count(value) {
		return new Intl.NumberFormat(language()).format(Math.round(this.number(value)));
	},

	rate(value) {
		const n = this.number(value);
		const digits = (n > 0 && n < 10) ? 1 : 0;
		return new Intl.NumberFormat(language(), { maximumFractionDigits: digits }).format(n);
	},

	bytes(value) {
		let n = Math.max(0, this.number(value)), unit = 0;

		while (n >= 1024 && unit < UNITS.length - 1) {
			n /= 1024;
			unit++;
		}

		const digits = (unit > 0 && n < 10) ? 1 : 0;
		const figure = new Intl.NumberFormat(language(), { maximumFractionDigits: digits }).format(n);
		return figure + ' ' + UNITS[unit];
	},

	/* A span of milliseconds in its two largest units. */
	span(ms) {
		const s = Math.max(0, Math.floor(this.number(ms) / 1000));

		if (s < 60)
			return _('%d s').format(s);
		if (s < 3600)
			return _('%d min').format(Math.floor(s / 60));
		if (s < 86400)
			return _('%d h %d min').format(Math.floor(s / 3600), Math.floor(s / 60) % 60);

		return _('%d d %d h').format(Math.floor(s / 86400), Math.floor(s / 3600) % 24);
	},

	/* How long ago, by the router's clock: the browser's may differ. */
	ago(now, then) {
		const at = this.number(then);

		if (at <= 0)
			return _('never');
		if (this.number(now) < at)
			return _('just now');

		return _('%s ago').format(this.span(this.number(now) - at));
	},

	clockIsSet(ms) {
		return this.number(ms) >= CLOCK_SET_MS;
	},

	time(value) {
		const ms = this.number(value);

		if (ms <= 0)
			return _('never');
		if (!this.clockIsSet(ms))
			return _('before the clock was set');

		/* Beyond this a Date is invalid and would throw. */
		if (ms > 8.64e15)
			return _('unknown');

		return new Date(ms).toLocaleString(language(), { dateStyle: 'short', timeStyle: 'medium' });
	},

	SEVERITIES: [ 'critical', 'high', 'medium', 'low', 'info' ],

	severity(word) {
		switch (word) {
		case 'critical': return _('critical');
		case 'high': return _('high');
		case 'medium': return _('medium');
		case 'low': return _('low');
		case 'info': return _('info');
		default: return this.clean(word, 16) || _('unknown');
		}
	},

	/* What a rule of the daemon looks for, in words. */
	rule(name) {
		switch (name) {
		case 'blocklist': return _('name on a list');
		case 'dga': return _('generated names');
		case 'direct-ip': return _('address without a name');
		case 'firewall': return _('stopped by the firewall');
		case 'new-device': return _('new device');
		default: return this.clean(name, 32) || _('unknown');
		}
	}
});
