'use strict';
'require baseclass';
'require agentmon.api as api';
'require agentmon.text as text';
'require agentmon.widgets as widgets';

/*
 * The sections of the status page, each a pure function from the daemon's `status` (or
 * `alerts`) to nodes. A missing or odd field costs its cell, never the page.
 */

/* What one value of `events_per_s` covers, where the daemon does not say. */
const STEP_MS = 5000;
const POINTS_MAX = 720;

/* Rows shown; the daemon sends few, but what it sends is not trusted. */
const COLLECTORS_MAX = 64;
const REASONS_MAX = 64;
const TALKERS_MAX = 20;
const ADVICE_MAX = 16;

const LEVELS = {
	ok: 'good', connected: 'good', done: 'good',
	off: 'off', not_joined: 'off',
	starting: 'warn', trying: 'warn',
	problem: 'bad'
};

/* A state of a later version is shown as it is, and as trouble. */
function level(state) {
	return Object.hasOwn(LEVELS, state) ? LEVELS[state] : 'warn';
}

function stateName(state) {
	switch (state) {
	case 'ok': return _('working');
	case 'connected': return _('connected');
	case 'done': return _('finished');
	case 'off': return _('off');
	case 'not_joined': return _('not joined');
	case 'starting': return _('starting');
	case 'trying': return _('trying to connect');
	case 'problem': return _('problem');
	default: return text.clean(state, 48) || _('unknown');
	}
}

function badge(state) {
	return widgets.badge(level(state), stateName(state));
}

/* The state, and below it in small what the daemon says of it. */
function hubLink(hub, now) {
	const said = [ badge(hub.state) ];

	if (hub.url)
		said.push(' ', widgets.value(hub.url, 64));
	if (hub.state == 'not_joined')
		said.push(E('div', {}, [ _('Events stay on this router. To send them on, put the join line of a hub into the settings.') ]));

	for (const line of new Set([ hub.detail, hub.error ]))
		if (line && line != hub.state)
			said.push(E('div', { 'class': 'agentmon-why' }, [ text.clean(line, 300) ]));
	if (hub.url)
		said.push(E('div', { 'class': 'agentmon-minor' }, [ _('Last receipt: %s').format(text.ago(now, hub.last_ack)) ]));

	return said;
}

function ringFill(ring) {
	const most = text.number(ring.bytes_max), used = text.number(ring.bytes);
	const words = (most > 0) ? _('%s of %s').format(text.bytes(used), text.bytes(most)) : text.bytes(used);

	return [ words, ' ', (most > 0)
		? E('meter', { 'min': '0', 'max': String(most), 'value': String(used), 'aria-label': _('Memory used by waiting events') }, [ words ])
		: '' ];
}

function copyOnFlash(copy) {
	const age = (copy.age_seconds == null) ? _('none yet') : _('%s old').format(text.span(text.number(copy.age_seconds) * 1000));
	const said = [ _('%s, every %s').format(age, text.span(text.number(copy.every_seconds) * 1000)) ];

	if (copy.state && !String(copy.state).startsWith('ok'))
		said.push(E('div', { 'class': 'agentmon-why' }, [ text.clean(copy.state, 300) ]));

	return said;
}

return baseclass.extend({
	level,
	stateName,
	badge,

	overview(status) {
		const hub = api.table(status, 'hub'), ring = api.table(status, 'ring');
		const resources = api.table(status, 'resources'), config = api.table(status, 'config');
		const now = text.number(status.now);
		const pairs = [
			[ _('Version'), [ widgets.value(status.version, 40) ] ],
			[ _('Sensor'), [ widgets.value(status.sensor, 64) ] ],
			[ _('Running'), [ _('for %s').format(text.span(text.number(status.uptime_seconds) * 1000)) ] ],
			[ _('Hub'), hubLink(hub, now) ],
			[ _('Waiting for the hub'), [ _('%s events, %s').format(text.count(hub.backlog_events), text.bytes(hub.backlog_bytes)) ] ],
			[ _('Ring of events'), ringFill(ring) ]
		];

		if (ring.snapshot != null)
			pairs.push([ _('Copy on flash'), copyOnFlash(api.table(ring, 'snapshot')) ]);
		if (text.number(ring.evicted) > 0)
			pairs.push([ _('Pushed out by newer ones'), [ text.count(ring.evicted) ] ]);
		if (resources.rss_bytes != null)
			pairs.push([ _('Memory of the program'), [ text.bytes(resources.rss_bytes) ] ]);
		if (config.error)
			pairs.push([ _('Settings'), [ widgets.badge('bad', _('refused')), E('div', { 'class': 'agentmon-why' }, [
				_('The last change is not in force: %s').format(text.clean(config.error, 400)) ]) ] ]);
		if (now > 0 && !text.clockIsSet(now))
			pairs.push([ _('Clock'), [ widgets.badge('warn', _('not set yet')), ' ',
				_('Times are right once the router has learnt the time of day.') ] ]);

		return widgets.section(_('Overview'), [ widgets.facts(_('Overview'), pairs) ], 'agentmon-overview');
	},

	rates(status) {
		const all = Array.isArray(status.events_per_s) ? status.events_per_s.slice(-POINTS_MAX) : [];
		const values = all.map((value) => text.number(value));
		const step = text.number(status.events_per_s_step_ms) || STEP_MS;

		if (values.length == 0)
			return widgets.section(_('Events per second'), [ widgets.empty(_('Nothing measured yet.')) ], 'agentmon-rates');

		const newest = values[values.length - 1];
		const label = _('Events per second over the last %s: now %s, highest %s').format(
			text.span(values.length * step), text.rate(newest), text.rate(Math.max(...values)));

		return widgets.section(_('Events per second'), [
			widgets.sparkline(values, label), E('p', { 'class': 'agentmon-minor', 'aria-hidden': 'true' }, [ label ])
		], 'agentmon-rates');
	},

	collectors(status) {
		const now = status.now;
		const rows = api.list(status, 'collectors', COLLECTORS_MAX).map((one) => [
			widgets.value(one.name, 40), badge(one.state),
			(one.detail && one.detail != one.state) ? E('span', {}, [ text.clean(one.detail, 300) ]) : '',
			(one.events == null) ? '–' : text.count(one.events),
			(one.events == null) ? '–' : text.ago(now, one.last_event)
		]);
		const content = rows.length ? widgets.table(_('Collectors'), [
			{ title: _('Collector') }, { title: _('State') }, { title: _('Detail'), wide: true },
			{ title: _('Events'), number: true }, { title: _('Last event') }
		], rows) : widgets.empty(_('No collector is switched on, so nothing is seen.'));

		return widgets.section(_('Collectors'), [ content ], 'agentmon-collectors');
	},

	drops(status) {
		const rows = api.list(status, 'drops', REASONS_MAX)
			.filter((one) => text.number(one.count) > 0)
			.map((one) => [ widgets.value(one.reason, 96), text.count(one.count) ]);
		const content = rows.length
			? widgets.table(_('Lost events'), [ { title: _('Reason') }, { title: _('Events'), number: true } ], rows)
			: widgets.empty(_('Nothing was lost since the start.'));

		return widgets.section(_('Lost events'), [ content ], 'agentmon-drops');
	},

	talkers(status) {
		const rows = api.list(status, 'top_talkers', TALKERS_MAX).map((one) => [
			widgets.value(one.device || one.name || one.mac || one.ip, 48), widgets.value(one.ip, 45),
			text.bytes(one.bytes), text.count(one.flows)
		]);
		const content = rows.length ? widgets.table(_('Top talkers'), [
			{ title: _('Device') }, { title: _('Address') },
			{ title: _('Bytes'), number: true }, { title: _('Connections'), number: true }
		], rows) : widgets.empty(_('No connection has been seen yet.'));

		const seconds = text.number(status.top_talkers_seconds);
		const over = (seconds > 0) ? E('p', { 'class': 'agentmon-minor' }, [ _('Over the last %s.').format(text.span(seconds * 1000)) ]) : '';

		return widgets.section(_('Top talkers'), [ over, content ], 'agentmon-talkers');
	},

	/* What should be on and is not: kernel, firewall, memory. Nothing when all is well. */
	kernel(status) {
		const rows = api.list(api.table(status, 'kernel'), 'problems', ADVICE_MAX).map((one) => [
			E('div', {}, [ widgets.badge('warn', text.clean(one.what, 120)), E('div', { 'class': 'agentmon-why' }, [ text.clean(one.detail, 300) ]) ]),
			E('span', {}, [ text.clean(one.mend, 300) || '–' ]) ]);

		if (rows.length == 0)
			return '';

		return widgets.section(_('What is off and should be on'), [
			widgets.table(_('What is off and should be on'),
				[ { title: _('What is off'), wide: true }, { title: _('How to mend it'), wide: true } ], rows)
		], 'agentmon-kernel');
	},

	latest(alerts, max) {
		const rows = api.list(alerts, 'alerts', max).map((one) => [
			text.time(one.time), widgets.severity(one.severity),
			widgets.value(one.device, 48),
			E('div', {}, [ E('strong', {}, [ text.clean(one.title || one.subject, 120) ]), E('div', { 'class': 'agentmon-why' }, [ text.clean(one.why, 300) ]) ])
		]);
		const content = rows.length ? widgets.table(_('Latest alerts'), [
			{ title: _('Time') }, { title: _('Severity') }, { title: _('Device') }, { title: _('What and why'), wide: true }
		], rows) : widgets.empty(_('No alerts yet.'));

		return widgets.section(_('Latest alerts'), [ content,
			E('p', {}, [ E('a', { 'href': L.url('admin/services/agentmon/alerts') }, [ _('All alerts') ]) ]) ], 'agentmon-latest');
	}
});
