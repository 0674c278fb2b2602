'use strict';
'require baseclass';
'require dom';
'require agentmon.text as text';

/*
 * The filter above the alerts: words, lowest severity, device, rule, acknowledged or not.
 * Words are looked for in everything a row shows and must all be there. The choices of
 * devices and rules are those that occur.
 */

const CHOICES_MAX = 200;
const WORDS_MAX = 100;

function choices(all, key) {
	const seen = new Set();

	for (const one of all)
		if (typeof one[key] == 'string' && one[key] != '' && seen.size < CHOICES_MAX)
			seen.add(one[key]);

	return Array.from(seen).sort();
}

function labelled(title, control) {
	return E('label', {}, [ title, control ]);
}

/* Renews a select's choices without losing what is chosen, even when it is gone by now. */
function renew(select, values, name) {
	const chosen = select.value;
	const wanted = (chosen == '' || values.includes(chosen)) ? values : values.concat([ chosen ]);

	if (JSON.stringify(wanted) == select.getAttribute('data-choices'))
		return;

	dom.content(select, [ E('option', { 'value': '' }, [ _('all') ]) ].concat(
		wanted.map((value) => E('option', { 'value': value }, [ name(value) ]))));
	select.setAttribute('data-choices', JSON.stringify(wanted));
	select.value = chosen;
}

const Filter = baseclass.extend({
	__init__(changed) {
		const select = (options) => E('select', { 'class': 'cbi-input-select', 'change': changed }, options);
		const all = () => E('option', { 'value': '' }, [ _('all') ]);

		this.words = E('input', { 'type': 'search', 'maxlength': String(WORDS_MAX), 'placeholder': _('name, address, words'), 'input': changed });
		this.severity = select([ all() ].concat(text.SEVERITIES.slice(0, -1).map((word) =>
			E('option', { 'value': word }, [ (word == 'critical') ? text.severity(word) : _('%s and above').format(text.severity(word)) ]))));
		this.device = select([ all() ]);
		this.rule = select([ all() ]);
		this.acked = E('input', { 'type': 'checkbox', 'change': changed });
		this.root = E('div', { 'class': 'agentmon-filter', 'role': 'search' }, [
			labelled(_('Filter'), this.words), labelled(_('Severity'), this.severity),
			labelled(_('Device'), this.device), labelled(_('Rule'), this.rule),
			E('label', { 'class': 'agentmon-check' }, [ this.acked, _('show acknowledged') ])
		]);
	},

	offer(all) {
		renew(this.device, choices(all, 'device'), (value) => text.clean(value, 40));
		renew(this.rule, choices(all, 'rule'), (value) => text.rule(value));
	},

	fits(one) {
		const rank = text.SEVERITIES.indexOf(one.severity);

		if (one.acked && !this.acked.checked)
			return false;
		if (this.severity.value != '' && (rank < 0 || rank > text.SEVERITIES.indexOf(this.severity.value)))
			return false;
		if (this.device.value != '' && one.device !== this.device.value)
			return false;
		if (this.rule.value != '' && one.rule !== this.rule.value)
			return false;

		const line = [ one.title, one.subject, one.device, one.why, one.rule, text.rule(one.rule), one.severity ]
			.map((part) => text.clean(part, text.KEPT_MAX)).join('\n').toLowerCase();
		return this.words.value.toLowerCase().split(/\s+/).every((word) => line.includes(word));
	}
});

return baseclass.extend({
	make(changed) {
		return new Filter(changed);
	}
});
