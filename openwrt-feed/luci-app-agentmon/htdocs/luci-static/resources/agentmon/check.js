'use strict';
'require baseclass';

/*
 * Checks of the settings' values: each makes a validator for a form option, which returns
 * true or what is wrong and what is wanted. The daemon checks everything again; these say it
 * while one still types. Nothing is refused here that the daemon takes.
 */

const SECONDS = { s: 1, m: 60, h: 3600, d: 86400 };
const DURATION = /^([0-9]{1,9})([smhd])$/;
const BYTES = { '': 1, K: 1024, M: 1024 * 1024, G: 1024 * 1024 * 1024 };
const SIZE = /^([0-9]{1,12})([KMG]?)$/;

const DOMAIN = /^(?=.{1,253}\.?$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?$/i;
const SERVICE = /^([0-9]{1,5})\/(tcp|udp|sctp|dccp)$/;
const JOIN = /^agentmon-join-[A-Za-z0-9_.=:+\/-]{1,32000}$/;
const NAME = /^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?$/;
const UTC_OFFSET = /^[+-][0-9]{2}:[0-9]{2}$/;
const POSIX_TZ = /^[A-Za-z<][A-Za-z0-9<>+:,.\/-]{2,63}$/;

function seconds(value) {
	const match = DURATION.exec(value);
	return match ? match[1] * SECONDS[match[2]] : NaN;
}

function bytes(value) {
	const match = SIZE.exec(value);
	return match ? match[1] * BYTES[match[2]] : NaN;
}

/* An empty value means the default and is always right; whether it may be empty is the
   option's affair. */
function validator(right, wanted) {
	return function(section, value) {
		return (value == null || value === '' || right(String(value))) ? true : wanted;
	};
}

function between(parse, least, most, wanted) {
	return validator((value) => {
		const number = parse(value);
		return number >= parse(least) && number <= parse(most);
	}, wanted.format(least, most));
}

return baseclass.extend({
	duration(least, most) {
		return between(seconds, least, most, _('a time from %s to %s, like 15s, 5m, 24h or 7d'));
	},

	/* The same, or 0 for never. */
	durationOrNever(least, most) {
		const check = this.duration(least, most);
		return (section, value) => (value === '0') ? true : check(section, value);
	},

	size(least, most) {
		return between(bytes, least, most, _('a size from %s to %s, like 512K or 16M'));
	},

	whole(least, most) {
		return validator((value) => {
			const number = /^[0-9]{1,10}$/.test(value) ? +value : NaN;
			return number >= least && number <= most;
		}, _('a whole number from %s to %s').format(least, most));
	},

	/* 0 to 1. */
	share() {
		return validator((value) => /^([0-9]{1,3}(\.[0-9]{0,9})?|\.[0-9]{1,9})$/.test(value) && +value <= 1,
			_('a number from 0 to 1, like 0.5'));
	},

	path() {
		return validator((value) => value.startsWith('/') && value.length <= 255 && !/[\u0000-\u001f\u007f]/.test(value),
			_('a full path, beginning with /'));
	},

	url() {
		return validator((value) => {
			try {
				const url = new URL(value);
				return url.protocol == 'https:' && url.hostname != '' && !/\s/.test(value);
			}
			catch (e) {
				return false;
			}
		}, _('an address that begins with https://'));
	},

	join() {
		return validator((value) => JOIN.test(value), _('the whole line that agentmon enroll printed, beginning with agentmon-join-'));
	},

	name() {
		return validator((value) => NAME.test(value), _('letters, digits, dot, dash and underscore, at most 64'));
	},

	domain() {
		return validator((value) => DOMAIN.test(value), _('a domain name like example.com'));
	},

	service() {
		return validator((value) => {
			const match = SERVICE.exec(value);
			return match != null && +match[1] >= 1 && +match[1] <= 65535;
		}, _('a port and protocol like 123/udp'));
	},

	timezone() {
		return validator((value) => value == 'local' || value == 'utc' || UTC_OFFSET.test(value) || POSIX_TZ.test(value),
			_('local, utc, an offset like +02:00, or a POSIX time zone like CET-1CEST,M3.5.0,M10.5.0/3'));
	}
});
