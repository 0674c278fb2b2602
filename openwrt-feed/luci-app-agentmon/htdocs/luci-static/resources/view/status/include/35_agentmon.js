'use strict';
'require baseclass';
'require agentmon.api as api';
'require agentmon.parts as parts';
'require agentmon.text as text';
'require agentmon.widgets as widgets';

/*
 * The card on Status > Overview: whether agentmon works and what it says. The overview page
 * asks `load` at every poll. A card that cannot be drawn must not disturb the page of
 * others: no answer is one line, no permission no card at all.
 */

const NEWEST = 20;

/* How many wait, by the daemon's own count, and the newest of them. */
function alertLine(status, reply) {
	const open = text.number(api.table(status, 'alerts').open);

	if (open == 0)
		return _('none waiting');

	const first = (reply.state == 'ok') ? api.list(reply.data, 'alerts', NEWEST).find((one) => !one.acked) : null;

	return E('div', {}, [ _('%s waiting').format(text.count(open)) ].concat(first ? [
		' · ', widgets.severity(first.severity), ' ', widgets.value(first.title || first.subject, 80) ] : []));
}

function collectorLine(status) {
	const all = api.list(status, 'collectors', 64).filter((one) => parts.level(one.state) != 'off');
	const bad = all.filter((one) => parts.level(one.state) != 'good');

	if (bad.length == 0)
		return widgets.badge('good', _('all %d working').format(all.length));

	return E('div', {}, [ widgets.badge('warn', _('%d of %d with trouble').format(bad.length, all.length)), ' ',
		bad.slice(0, 4).map((one) => text.clean(one.name, 24)).join(', ') ]);
}

function content(status, alerts) {
	if (status.state == 'missing')
		return widgets.facts(_('agentmon'), [ [ _('State'), [ widgets.badge('warn', _('not running')) ] ] ]);
	if (status.state != 'ok')
		return widgets.facts(_('agentmon'), [ [ _('State'), [ widgets.badge('warn', _('no answer')) ] ] ]);

	const hub = api.table(status.data, 'hub');

	return widgets.facts(_('agentmon'), [
		[ _('Collectors'), [ collectorLine(status.data) ] ],
		[ _('Hub'), [ parts.badge(hub.state), ' ', _('%s events waiting').format(text.count(hub.backlog_events)) ] ],
		[ _('Alerts'), [ alertLine(status.data, alerts) ] ]
	]);
}

return baseclass.extend({
	title: _('agentmon'),

	load() {
		return Promise.all([ api.status(), api.alerts(NEWEST) ]);
	},

	render(replies) {
		if (!Array.isArray(replies) || replies[0].state == 'denied')
			return null;

		return widgets.page([ content(replies[0], replies[1]),
			E('div', { 'class': 'right' }, [ E('a', { 'href': L.url('admin/services/agentmon') }, [ _('Details') ]) ]) ]);
	}
});
