'use strict';
'require baseclass';

/*
 * Checks of the settings' values: each makes a validator for a form option, which returns
 * true or what is wrong and what is wanted. The daemon checks everything again; these say it
 * while one still types. Nothing is refused here that the daemon takes.
 */

const SECONDS = { '': 1, s: 1, m: 60, h: 3600, d: 86400 };
const DURATION = /^([0-9]{1,12}) *([smhd]?)$/;
const BYTES = { '': 1, k: 1024, m: 1024 * 1024, g: 1024 * 1024 * 1024 };
const SIZE = /^([0-9]{1,15}) *([kmg]?)(i?b)?$/;

const IFACE = /^[A-Za-z0-9._@-]{1,15}$/;
const DOMAIN = /^(?=.{1,253}\.?$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?$/i;
const SERVICE = /^([0-9]{1,5})\/(tcp|udp)$/;
/* An address and a port; IPv6 in brackets. */
const ENDPOINT = /^(((0|[1-9][0-9]{0,2})\.){3}(0|[1-9][0-9]{0,2})|\[[0-9a-fA-F:.]{2,45}\]):([1-9][0-9]{0,4})$/;
/* The web interface of a Pi-hole: without TLS only on this machine. */
const WEB = /^(https:\/\/[A-Za-z0-9.:\[\]-]{1,300}|http:\/\/(localhost|127\.[0-9.]+|\[::1\])(:[0-9]{1,5})?)\/?$/;
const HOST = /^[A-Za-z0-9._][A-Za-z0-9._-]{0,252}$/;
/* ssh itself reads more than one wants into other letters. */
const PLAIN_PATH = /^\/[A-Za-z0-9\/._+@,-]{1,250}$/;
const PIHOLE = /^[a-z0-9_-]{1,32}$/;
const NAME = /^[A-Za-z0-9._-]{1,64}$/;
/* MAC or address, =, a name with at least a letter or digit. The daemon takes no names that
   name nothing. */
const NAMED = /^\s*([0-9A-Fa-f:.-]{2,45})\s*=\s*([^=\u0000-\u001f]*[A-Za-z0-9\u0080-\uffff].*)$/;
const MAC = /^[0-9A-Fa-f]{1,2}([:-][0-9A-Fa-f]{1,2}){5}$/;
const IPV4 = /^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(?!$)|$)){4}$/;
const NO_NAME = /^(localhost6?|localhost\.localdomain|ip6-localhost|unknown|\(none\)|none|null|nohost)\.?$/i;
const HUB = /^https:\/\/[A-Za-z0-9.:\[\]-]{1,300}$/;
/* Absolute, and of a file: no control characters, not / itself, not the folder above. */
const PATH = /^\/+[^\u0000-\u001f\u007f-\u009f\/][^\u0000-\u001f\u007f-\u009f]{0,253}$/;
const UP = /\/\.{1,2}\/*$/;
const UTC_OFFSET = /^[+-](0[0-9]|1[0-4]):[0-5][0-9]$/;
const POSIX_TZ = /^[A-Za-z]{3,6}[+-]?[0-9]{1,2}(:[0-9]{2})?([A-Za-z]{3,6}([+-]?[0-9]{1,2})?,M[0-9.]+(\/[0-9:]+)?,M[0-9.]+(\/[0-9:]+)?)?$/;

/* A join line: this, and behind it a JSON object in base64url. See router/src/join.rs. */
const JOIN = /^agentmon-join1:([A-Za-z0-9_-]{1,16369})=*$/;
const JOIN_FIELDS = [ 'url', 'name', 'token', 'ca_pem' ];

function seconds(value) {
	const match = DURATION.exec(String(value).trim().toLowerCase());
	return match ? match[1] * SECONDS[match[2]] : NaN;
}

function isAddress(value) {
	try {
		return IPV4.test(value) || (value.includes(':') && new URL('http://[' + value + ']/').hostname != '');
	}
	catch (e) {
		return false;
	}
}

/* The first octet's lowest bit marks a group, and an address of zeros nobody. */
function isMac(value) {
	return MAC.test(value) && parseInt(value.split(/[:-]/)[0], 16) % 2 == 0 && /[1-9a-f]/i.test(value);
}

function isNamed(value) {
	const match = NAMED.exec(value);
	const name = match ? match[2].trim() : '';
	return match != null && (isMac(match[1]) || isAddress(match[1])) &&
		!NO_NAME.test(name) && !isMac(name) && !isAddress(name);
}

function bytes(value) {
	const match = SIZE.exec(String(value).trim().toLowerCase());
	return (match && (match[2] || !match[3])) ? match[1] * BYTES[match[2]] : NaN;
}

/* Whether a join line came whole: what it holds can be read, and nothing is missing. */
function isJoin(value) {
	const match = JOIN.exec(value.replace(/\s/g, ''));

	try {
		const join = JSON.parse(atob(match[1].replace(/-/g, '+').replace(/_/g, '/')));
		return join.v === 1 && JOIN_FIELDS.every((key) => typeof join[key] == 'string' && join[key] != '') && HUB.test(join.url);
	}
	catch (e) {
		return false;
	}
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
		return (section, value) => (seconds(value) === 0) ? true : check(section, value);
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
		return validator((value) => PATH.test(value) && !UP.test(value),
			_('the full path of a file, beginning with /'));
	},

	url() {
		return validator((value) => HUB.test(value), _('https:// and the name or address of the hub, perhaps with a port, and nothing behind it'));
	},

	join() {
		return validator(isJoin, _('the whole line that agentmon enroll printed; it begins with agentmon-join1: and this one is damaged or cut off'));
	},

	web() {
		return validator((value) => WEB.test(value), _('https:// and the name or address of the Pi-hole, perhaps with a port, and nothing behind it'));
	},

	address() {
		return validator(isAddress, _('an address like 192.168.1.2'));
	},

	host() {
		return validator((value) => HOST.test(value) || isAddress(value), _('a name like pi.hole, or an address'));
	},

	user() {
		return validator((value) => HOST.test(value), _('letters, digits, dot, dash and underscore'));
	},

	plainPath() {
		return validator((value) => PLAIN_PATH.test(value) && !UP.test(value), _('the full path of a file, of letters, digits, dots, dashes and underscores'));
	},

	pihole() {
		return validator((value) => PIHOLE.test(value), _('lower case letters, digits, dash and underscore, at most 32'));
	},

	name() {
		return validator((value) => NAME.test(value), _('letters, digits, dot, dash and underscore, at most 64'));
	},

	named() {
		return validator(isNamed, _('a MAC or an address, = and a name, like 192.168.1.9=camera'));
	},

	iface() {
		return validator((value) => IFACE.test(value), _('the name of an interface, like br-lan'));
	},

	domain() {
		return validator((value) => DOMAIN.test(value), _('a domain name like example.com'));
	},

	exempt() {
		return validator((value) => DOMAIN.test(value) || /^([0-9]+([.][0-9]+){3}|[0-9a-f]*:[0-9a-f:]*)(\/[0-9]+)?$/i.test(value), _('a domain name, an address or a network'));
	},

	pattern() {
		return validator((value) => /^[a-z0-9._-]{3,100}$/i.test(value) && /[a-z0-9]/i.test(value), _('3 to 100 letters, digits, -, _ and dots'));
	},

	service() {
		return validator((value) => {
			const match = SERVICE.exec(value);
			return match != null && +match[1] >= 1 && +match[1] <= 65535;
		}, _('a port and protocol like 123/udp'));
	},

	endpoint() {
		/* What has the form is an address where the browser takes it for one. */
		return validator((value) => ENDPOINT.test(value) && URL.canParse('http://' + value),
			_('an address and a port like 0.0.0.0:5514 or [::]:5514'));
	},

	timezone() {
		return validator((value) => value == 'local' || value == 'utc' || UTC_OFFSET.test(value) || POSIX_TZ.test(value),
			_('local, utc, an offset like +02:00, or a POSIX time zone like CET-1CEST,M3.5.0,M10.5.0/3'));
	}
});
