'use strict';
'require baseclass';
'require form';
'require uci';

/*
 * The kinds of options that the settings are made of: switch, value, list of values, choice.
 */

function section(map, name, type, title, help) {
	return map.section(form.NamedSection, name, type, title, help);
}

/* UCI knows more words for on and off than LuCI's checkbox: without this `yes` would be
   shown, and saved, as off. */
const ON = [ '1', 'on', 'true', 'yes', 'enabled' ];
const OFF = [ '0', 'off', 'false', 'no', 'disabled' ];

const Switch = form.Flag.extend({
	load(section_id) {
		const value = String(uci.get('agentmon', section_id, this.option) ?? '').toLowerCase();

		if (ON.includes(value))
			return '1';

		return OFF.includes(value) ? '0' : null;
	}
});

function flag(parent, name, title, help, standard) {
	const option = parent.option(Switch, name, title, help);
	option.default = standard;
	/* Written out even when it is the default: what is on and off is seen in the file. */
	option.rmempty = false;
	return option;
}

function value(parent, name, title, help, standard, validate) {
	const option = parent.option(form.Value, name, title, help);
	option.placeholder = standard;
	option.validate = validate;
	return option;
}

function values(parent, name, title, help, type) {
	const option = parent.option(form.DynamicList, name, title, help);
	option[typeof type == 'string' ? 'datatype' : 'validate'] = type;
	return option;
}

/* One of a few words, each with what it means. */
function choice(parent, name, title, help, standard, ...words) {
	const option = parent.option(form.ListValue, name, title, help);
	option.default = standard;

	for (const [ word, meaning ] of words)
		option.value(word, meaning);

	return option;
}

/* Shown only while the section is switched on, but kept while it is not: LuCI would forget
   the values of what it hides. */
function only(...options) {
	for (const option of options) {
		option.depends('enabled', '1');
		option.retain = true;
	}
}

/* A second check behind an option's own. */
function also(option, right, wanted) {
	const own = option.validate;

	option.validate = function(section_id, value) {
		const verdict = own.call(this, section_id, value);
		return (verdict !== true || right(section_id, value)) ? verdict : wanted;
	};
}

/* Sections that a person adds, as many as there shall be. */
function many(map, type, title, help) {
	const s = map.section(form.TypedSection, type, title, help);
	s.addremove = true;
	s.anonymous = false;
	return s;
}

return baseclass.extend({ section, flag, value, values, choice, only, also, many });
