'use strict';
'require view';
'require agentmon.api as api';
'require agentmon.live as live';
'require agentmon.text as text';
'require agentmon.widgets as widgets';

/*
 * Services > agentmon > Devices: who is on the network and how much each asked and sent.
 * Filter and order are kept while the data is renewed.
 */

const DEVICES_MAX = 1000;
const ADDRESSES_SHOWN = 3;

const COLUMNS = {
	name: (one) => text.clean(one.name || one.mac).toLowerCase(),
	mac: (one) => text.clean(one.mac),
	last_seen: (one) => -text.number(one.last_seen),
	queries: (one) => -text.number(one.queries),
	blocked: (one) => -text.number(one.blocked),
	flows: (one) => -text.number(one.flows),
	bytes: (one) => -text.number(one.bytes),
	alerts: (one) => -text.number(one.alerts)
};

function addresses(one) {
	const all = Array.isArray(one.ips) ? one.ips : [];
	const shown = all.slice(0, ADDRESSES_SHOWN).map((ip) => E('div', {}, [ widgets.value(ip, 45) ]));

	if (all.length > ADDRESSES_SHOWN)
		shown.push(E('div', { 'class': 'agentmon-minor', 'title': all.slice(0, 32).map((ip) => text.clean(ip, 45)).join(', ') },
			[ _('and %d more').format(all.length - ADDRESSES_SHOWN) ]));

	return E('div', {}, shown);
}

/* Who gives a device its name; the daemon says which counts. */
function source(one) {
	switch (one.name_source) {
	case 'static': return _('Name from the settings');
	case 'lease': return _('Name the device gave itself (DHCP)');
	case 'pihole': return _('Name from Pi-hole');
	case 'ptr': return _('Name from a reverse look-up');
	default: return _('Nobody gave it a name');
	}
}

function name(one) {
	return E('div', { 'title': source(one) }, [ widgets.value(one.name, 48) ]);
}

/* Phones make up a MAC for each network: it says nothing about the maker, and may change. */
function mac(one) {
	const parts = [ widgets.value(one.mac, 17) ];

	if (one.mac_kind == 'random')
		parts.push(E('div', { 'class': 'agentmon-minor', 'title': _('The device made this MAC up itself and may change it.') }, [ _('random') ]));
	else if (one.mac_kind == 'virtual')
		parts.push(E('div', { 'class': 'agentmon-minor', 'title': _('A virtual machine or a container.') }, [ _('virtual') ]));

	return E('div', {}, parts);
}

function row(one) {
	return [
		name(one), mac(one), addresses(one),
		E('span', { 'title': _('First seen: %s').format(text.time(one.first_seen)) }, [ text.time(one.last_seen) ]),
		text.count(one.queries), text.count(one.blocked), text.count(one.flows), text.bytes(one.bytes),
		(text.number(one.alerts) > 0) ? widgets.badge('warn', text.count(one.alerts)) : '–'
	];
}

function matches(one, words) {
	const all = [ one.name, one.mac, one.mac_kind ].concat(Array.isArray(one.ips) ? one.ips.slice(0, 32) : []);
	const line = all.map((part) => text.clean(part, 255)).join(' ').toLowerCase();
	return words.every((word) => line.includes(word));
}

return view.extend({
	sorted: 'last_seen',
	wanted: '',

	load() {
		return live.part(() => api.devices(), (data) => this.draw(data), 10);
	},

	/* A heading that sorts. */
	heading(key, title) {
		return E('button', {
			'class': 'agentmon-sort', 'type': 'button', 'data-key': 'sort-' + key, 'title': _('Sort by this column'),
			'click': () => {
				this.sorted = key;
				this.part.redraw();
			}
		}, [ title + ((this.sorted == key) ? ' ▾' : '') ]);
	},

	table(devices) {
		const column = (key, title, more) => Object.assign({ title, key,
			sort: (this.sorted == key) ? ((key == 'name' || key == 'mac') ? 'ascending' : 'descending') : null }, more);
		const columns = [
			column('name', _('Name')), column('mac', _('MAC')), { title: _('Addresses') },
			column('last_seen', _('Last seen')), column('queries', _('DNS questions'), { number: true }),
			column('blocked', _('Blocked'), { number: true }), column('flows', _('Connections'), { number: true }),
			column('bytes', _('Bytes'), { number: true }), column('alerts', _('Open alerts'), { number: true })
		];
		const headings = {};

		for (const one of columns)
			if (one.key)
				headings[one.title] = this.heading(one.key, one.title);

		return widgets.table(_('Devices'), columns, devices.map(row), headings);
	},

	draw(data) {
		const all = api.list(data, 'devices', DEVICES_MAX);

		if (all.length == 0)
			return [ widgets.empty(_('No device has been seen yet. They appear with their first DHCP lease, question or connection.')) ];

		const words = this.wanted.toLowerCase().split(/\s+/).filter((word) => word != '');
		const key = COLUMNS[this.sorted];
		const order = (a, b) => (key(a) < key(b)) ? -1 : ((key(a) > key(b)) ? 1 : 0);
		const shown = all.filter((one) => matches(one, words)).sort(order);

		return [
			E('p', { 'class': 'agentmon-minor', 'role': 'status' }, [ _('%d of %d devices').format(shown.length, all.length) ]),
			shown.length ? this.table(shown) : widgets.empty(_('No device fits the filter.'))
		];
	},

	render(part) {
		this.part = part;

		return widgets.page([
			E('h2', {}, [ _('Devices') ]),
			E('div', { 'class': 'agentmon-filter' }, [
				E('label', {}, [ _('Filter'), E('input', {
					'type': 'search', 'maxlength': '100', 'placeholder': _('name, MAC or address'),
					'input': (ev) => {
						this.wanted = ev.target.value;
						part.redraw();
					}
				}) ])
			]),
			part.root
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
