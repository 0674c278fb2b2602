'use strict';
'require baseclass';
'require dom';
'require poll';
'require agentmon.api as api';
'require agentmon.text as text';
'require agentmon.widgets as widgets';

/*
 * Keeps a part of a page current: asks, draws, asks again, and says what is wrong when no
 * answer comes. Data that could not be refreshed stays, is marked and says how old it is.
 *
 * A part is drawn again only when its data changed, and the focus and opened details are
 * kept over that: a page that rebuilds itself under one's fingers cannot be used.
 */

function since(moment) {
	return text.span(performance.now() - moment);
}

function notRunning(off) {
	if (off)
		return widgets.notice('warning', _('agentmon is switched off'), [
			_('It is not enabled in its settings, so nothing is watched.'),
			[ E('a', { 'href': L.url('admin/services/agentmon/settings') }, [ _('Open the settings') ]) ]
		]);

	return widgets.notice('warning', _('agentmon is not running'), [
		_('Nothing is watched at the moment. To start it, now and at every boot, in a shell on the router:'),
		[ E('code', {}, [ 'service agentmon enable; service agentmon start' ]) ],
		[ _('Why it stopped may stand in the log:'), ' ', E('code', {}, [ 'logread -e agentmon' ]) ],
		[ E('a', { 'href': L.url('admin/system/startup') }, [ _('Startup page') ]), ' · ',
		  E('a', { 'href': L.url('admin/status/logs') }, [ _('Log page') ]) ]
	]);
}

function explain(reply) {
	switch (reply.state) {
	case 'missing':
		return api.switchedOff().then(notRunning);
	case 'denied':
		return widgets.notice('warning', _('No permission'), [
			_('This login may not see what agentmon knows. The right is called luci-app-agentmon.') ]);
	case 'silent':
		return widgets.notice('warning', _('agentmon does not answer'), [
			_('It runs, but gave no answer in time. The page goes on asking.') ]);
	case 'foreign':
		return widgets.notice('warning', _('agentmon is of another version'), [
			_('The service does not know this question. Bring the packages agentmon and luci-app-agentmon to the same version.') ]);
	case 'offline':
		return widgets.notice('warning', _('The router does not answer'), [
			_('There is no connection to the router at the moment. The page goes on asking.') ]);
	default:
		return widgets.notice('error', _('The question failed'), [
			_('The answer made no sense: %s').format(text.clean(reply.data, 200) || '–') ]);
	}
}

/* What is opened or focused, by key, to be found again in the new nodes. */
function remember(body) {
	const opened = Array.from(body.querySelectorAll('details[open][data-key]'), (node) => node.getAttribute('data-key'));
	const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute('data-key') : null;
	return { opened: new Set(opened), focused };
}

/* By comparing, not by a selector: a key may hold anything. */
function focusOn(body, key) {
	const found = Array.from(body.querySelectorAll('[data-key]')).find((node) =>
		node.localName != 'details' && node.getAttribute('data-key') === key);

	if (found)
		found.focus({ preventScroll: true });
}

function restore(body, kept) {
	for (const node of body.querySelectorAll('details[data-key]'))
		node.open = kept.opened.has(node.getAttribute('data-key'));

	if (kept.focused != null)
		focusOn(body, kept.focused);
}

const Part = baseclass.extend({
	/* `ask` resolves to { state, data } (see agentmon.api), `draw` makes nodes of `data`. */
	__init__(ask, draw) {
		this.ask = ask;
		this.draw = draw;
		this.notices = E('div', { 'class': 'agentmon-notices', 'aria-live': 'polite' });
		this.body = E('div', { 'class': 'agentmon-body' });
		this.root = E('div', {}, [ this.notices, this.body ]);
		this.data = null;
		this.at = null;
		this.state = null;
		this.first = null;
	},

	/* Says what is wrong only while `first` is well: one trouble is told once. */
	onlyWhile(first) {
		this.first = first;
		this.hush();
	},

	hush() {
		if (this.first == null || this.first.state == 'ok')
			return false;

		dom.content(this.notices, []);
		this.state = null;
		return true;
	},

	focus(key) {
		focusOn(this.body, key);
	},

	redraw() {
		if (this.data == null)
			return;

		const kept = remember(this.body);
		dom.content(this.body, this.draw(this.data));
		restore(this.body, kept);
	},

	take(reply) {
		const same = (this.data != null && JSON.stringify(this.data) == JSON.stringify(reply.data));
		this.data = reply.data;
		this.at = performance.now();

		if (!same)
			this.redraw();
	},

	complain(reply) {
		if (this.hush())
			return Promise.resolve();

		return Promise.resolve(explain(reply)).then((notice) => {
			const old = (this.data != null)
				? E('p', { 'class': 'agentmon-age' }, [ _('What is shown below is %s old.').format(since(this.at)) ])
				: '';

			/* The same trouble again: only the age changes, nothing is announced anew. */
			const told = (this.state == reply.state);
			this.state = reply.state;

			if (told) {
				const age = this.notices.querySelector('.agentmon-age');
				if (age != null)
					age.replaceWith(old || '');
				return;
			}

			if (old !== '')
				notice.appendChild(old);
			dom.content(this.notices, [ notice ]);
		});
	},

	refresh() {
		return this.ask().then((reply) => {
			if (reply.state == 'ok') {
				this.take(reply);
				dom.content(this.notices, []);
				this.root.classList.remove('agentmon-stale');
				this.state = 'ok';
				return null;
			}

			this.root.classList.toggle('agentmon-stale', this.data != null);
			return this.complain(reply);
		});
	}
});

return baseclass.extend({
	/* A part that asks now and then every `seconds` (LuCI's own interval without). */
	part(ask, draw, seconds) {
		const part = new Part(ask, draw);

		return part.refresh().then(() => {
			poll.add(() => part.refresh(), seconds);
			return part;
		});
	},

	explain
});
