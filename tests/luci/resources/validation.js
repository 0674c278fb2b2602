'use strict';
'require baseclass';

/* The few of LuCI's data types that the settings use: true, or what was expected. */

function ip4(value) {
	const parts = value.split('.');
	return parts.length == 4 && parts.every((part) => /^[0-9]{1,3}$/.test(part) && +part <= 255);
}

function ip6(value) {
	if (!/^[0-9a-f:.]+$/i.test(value) || !value.includes(':'))
		return false;
	try { return new URL('http://[' + value + ']/').hostname != ''; }
	catch (e) { return false; }
}

const TYPES = {
	ipaddr: (value) => ip4(value) || ip6(value),
	cidr: (value) => {
		const [ address, bits, more ] = value.split('/');
		return more == null && /^[0-9]{1,3}$/.test(bits || '') && (ip4(address) ? +bits <= 32 : ip6(address) && +bits <= 128);
	},
	uciname: (value) => /^[A-Za-z0-9_]+$/.test(value)
};

return baseclass.extend({
	check(type, value) {
		const either = /^or\((.*)\)$/.exec(type);
		const types = either ? either[1].split(',').map((one) => one.trim()) : [ type ];

		for (const one of types) {
			if (TYPES[one] == null)
				throw new Error('the stand-in does not know the data type ' + one);
			if (TYPES[one](value))
				return true;
		}
		return _('Expecting: %s').format(type);
	}
});
