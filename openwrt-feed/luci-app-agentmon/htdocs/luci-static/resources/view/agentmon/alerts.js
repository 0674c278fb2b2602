'use strict';
'require view';
'require ui';
'require agentmon.api as api';
'require agentmon.filter as filter';
'require agentmon.live as live';
'require agentmon.text as text';
'require agentmon.widgets as widgets';

/*
 * Services > agentmon > Alerts: what the detectors on the router found, newest first, with
 * filter, evidence and acknowledgement. The daemon keeps a bounded table, so all of it is
 * fetched and filtered here: typing costs the router nothing.
 */

const EVIDENCE_MAX = 32;

function details(one) {
	const evidence = Array.isArray(one.evidence) ? one.evidence.slice(0, EVIDENCE_MAX) : [];
	const facts = [
		[ _('Rule'), [ text.rule(one.rule) ] ], [ _('Subject'), [ text.clean(one.subject, 255) || '–' ] ],
		[ _('Device'), [ [ one.device, one.mac, one.ip ].filter((part, i, all) => part && all.indexOf(part) == i)
			.map((part) => text.clean(part, 64)).join(' · ') || '–' ] ],
		[ _('Score'), [ text.number(one.score).toFixed(2) ] ], [ _('Number'), [ text.clean(one.id, 40) ] ]
	];

	if (text.number(one.count) > 1)
		facts.push([ _('Seen'), [ _('%s times since %s').format(text.count(one.count), text.time(one.first)) ] ]);
	if (one.note)
		facts.push([ _('Note'), [ text.clean(one.note, api.NOTE_MAX) ] ]);

	return E('details', { 'data-key': 'details-' + text.clean(one.id, 40) }, [
		E('summary', { 'data-key': 'summary-' + text.clean(one.id, 40) }, [ _('Evidence') ]),
		widgets.facts(_('Evidence'), facts),
		evidence.length
			? E('ul', { 'class': 'agentmon-evidence' }, evidence.map((line) => E('li', {}, [ text.clean(line, 240) ])))
			: widgets.empty(_('The rule gave no numbers.'))
	]);
}

return view.extend({
	load() {
		this.filter = filter.make(() => this.part && this.part.redraw());
		return live.part(() => api.alerts(), (data) => this.draw(data), 10);
	},

	/* `opener` is the key of the button that gets the focus back. */
	acknowledge(one, opener) {
		const note = E('input', {
			'keydown': (ev) => {
				if (ev.key == 'Enter')
					document.querySelector('.modal [data-key=send-ack]').click();
			}, 'type': 'text', 'id': 'agentmon-note', 'class': 'cbi-input-text', 'maxlength': String(api.NOTE_MAX), 'style': 'width:100%' });
		const cancel = () => {
			ui.hideModal();
			this.part.focus(opener);
		};
		const trouble = E('p', { 'role': 'alert' });
		const send = () => api.ack(one.id, note.value.trim()).then((reply) => {
			if (reply.state == 'ok') {
				ui.hideModal();
				return this.part.refresh();
			}

			trouble.textContent = (reply.state == 'denied')
				? _('This login may not acknowledge alerts.')
				: _('It was not acknowledged: the service did not accept it.');
			return null;
		});

		ui.showModal(_('Acknowledge'), [
			E('p', {}, [ E('strong', {}, [ text.clean(one.title || one.subject, 120) ]), ' ', widgets.severity(one.severity) ]),
			E('p', {}, [ E('label', { 'for': 'agentmon-note' }, [ _('Note, for whoever looks at this later (not required)') ]), note ]),
			trouble,
			E('div', { 'class': 'right' }, [
				E('button', { 'class': 'btn cbi-button', 'click': cancel }, [ _('Cancel') ]), ' ',
				E('button', { 'class': 'btn cbi-button-positive important', 'data-key': 'send-ack', 'click': ui.createHandlerFn(this, send) }, [ _('Acknowledge') ])
			])
		]);
		note.focus();
	},

	ackCell(one) {
		if (one.acked)
			return E('span', { 'class': 'agentmon-minor' }, [ _('acknowledged') ]);

		return E('button', {
			'class': 'btn cbi-button cbi-button-action', 'data-key': 'ack-' + text.clean(one.id, 40),
			'disabled': L.hasViewPermission() ? null : '',
			'aria-label': _('Acknowledge: %s').format(text.clean(one.title || one.subject, 120)),
			'click': (ev) => this.acknowledge(one, ev.currentTarget.getAttribute('data-key'))
		}, [ _('Acknowledge') ]);
	},

	row(one) {
		const cells = [
			text.time(one.time), widgets.severity(one.severity), widgets.value(one.device, 48),
			E('div', {}, [
				E('strong', {}, [ text.clean(one.title || one.subject, 160) ]),
				E('div', { 'class': 'agentmon-why' }, [ text.clean(one.why, 600) ]), details(one)
			]),
			this.ackCell(one)
		];

		cells.attributes = { 'data-alert': text.clean(one.id, 40), 'class': one.acked ? 'tr agentmon-acked' : 'tr' };
		return cells;
	},

	draw(data) {
		const all = api.list(data, 'alerts', api.ALERTS_MAX);
		this.filter.offer(all);

		if (all.length == 0)
			return [ widgets.empty(_('No alerts yet. What a detector finds worth telling appears here.')) ];

		const shown = all.filter((one) => this.filter.fits(one));

		/* What the daemon holds beyond what it gives at once, or had to forget. */
		const more = text.number(data.total) - all.length, gone = text.number(data.evicted);

		return [
			E('p', { 'class': 'agentmon-minor', 'role': 'status' }, [ _('%d of %d alerts').format(shown.length, all.length) ]),
			(more > 0) ? E('p', { 'class': 'agentmon-minor' }, [ _('These are the newest; %s older ones are not shown.').format(text.count(more)) ]) : '',
			(gone > 0) ? E('p', { 'class': 'agentmon-minor' }, [ _('%s old ones made room for newer ones. The hub keeps all.').format(text.count(gone)) ]) : '',
			shown.length ? widgets.table(_('Alerts'), [
				{ title: _('Time') }, { title: _('Severity') }, { title: _('Device') },
				{ title: _('What and why'), wide: true }, { title: _('Acknowledge') }
			], shown.map((one) => this.row(one))) : widgets.empty(_('No alert fits the filter.'))
		];
	},

	render(part) {
		this.part = part;
		return widgets.page([ E('h2', {}, [ _('Alerts') ]), this.filter.root, part.root ]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
