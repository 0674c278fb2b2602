'use strict';
'require baseclass';
'require dom';
'require rpc';
'require uci';
'require ui';
'require validation';
'require widgets';

/* Forms over UCI: a map of sections of options. Titles and help are markup, as in LuCI. */

const access = rpc.declare({ object: 'session', method: 'access', params: [ 'scope', 'object', 'function' ], expect: { access: false } });

const same = (a, b) => JSON.stringify(a ?? null) == JSON.stringify(b ?? null);
const empty = (value) => value == null || value === '' || (Array.isArray(value) && value.length == 0);

const Map = baseclass.extend({
	__init__(config, title, description) {
		Object.assign(this, { config, title, description, children: [] });
	},
	section(Kind, ...args) {
		const section = new Kind(this, ...args);
		this.children.push(section);
		return section;
	},
	load() {
		return Promise.all([ access('uci', this.config, 'write'), uci.load(this.config) ]).then((got) => {
			this.readonly = !got[0];
		});
	},
	render() { return this.load().then(() => this.renderContents()); },

	renderContents() {
		this.root = this.root || E('div', { 'id': 'cbi-' + this.config, 'class': 'cbi-map', 'widget-change': () => this.checkDepends() });
		dom.bindClassInstance(this.root, this);
		dom.content(this.root, [ E('h2', { 'name': 'content' }, this.title), E('div', { 'class': 'cbi-map-descr' }, this.description) ]
			.concat(this.children.map((section) => section.render())));
		this.checkDepends();
		return this.root;
	},

	each(fn) { this.children.forEach((section) => section.sids().forEach((sid) => section.children.forEach((option) => fn(option, sid)))); },
	checkDepends() {
		this.each((option, sid) => {
			const field = option.fields[sid];
			if (field)
				field.row.classList.toggle('hidden', !option.wanted(sid));
		});
	},

	save(cb, silent) {
		return Promise.resolve().then(() => {
			this.checkDepends();
			this.each((option, sid) => option.parse(sid));
		}).then(() => uci.save()).then(() => this.load()).then(() => this.renderContents()).catch((error) => {
			if (!silent)
				ui.showModal(_('Save error'), [ E('p', {}, [ E('em', {}, [ error.message ]) ]),
					E('div', { 'class': 'right' }, [ E('button', { 'class': 'cbi-button', 'click': ui.hideModal }, [ _('Dismiss') ]) ]) ]);
			throw error;
		});
	},
	reset() { return this.renderContents(); }
});

const Section = baseclass.extend({
	option(Kind, name, title, description) {
		const option = new Kind(this, name, title, description);
		this.children.push(option);
		return option;
	},
	formvalue(sid, name) { return this.children.find((one) => one.option == name).formvalue(sid); },
	node(sid) {
		return E('div', { 'id': 'cbi-' + this.map.config + '-' + sid, 'class': 'cbi-section-node', 'data-section-id': sid },
			this.children.map((option) => option.render(sid)));
	},
	frame(children, id) {
		return E('div', { 'class': 'cbi-section', 'id': id ?? null }, [ this.title ? E('h3', {}, this.title) : '',
			this.description ? E('div', { 'class': 'cbi-section-descr' }, this.description) : '' ].concat(children));
	}
});

const NamedSection = Section.extend({
	__init__(map, name, type, title, description) {
		Object.assign(this, { map, name, type, title, description, children: [] });
	},
	sids() { return uci.get(this.map.config, this.name) ? [ this.name ] : []; },
	render() { return this.frame(this.sids().map((sid) => this.node(sid))); }
});

const TypedSection = Section.extend({
	__init__(map, type, title, description) {
		Object.assign(this, { map, type, title, description, children: [] });
	},
	sids() { return uci.sections(this.map.config, this.type).map((one) => one['.name']); },
	render() {
		const lock = this.map.readonly ? '' : null;
		const remove = (sid) => E('button', { 'class': 'cbi-button', 'disabled': lock, 'click': ui.createHandlerFn(this, () => {
			uci.remove(this.map.config, sid);
			return this.map.save(null, true);
		}) }, [ _('Delete') ]);
		const name = E('input', { 'type': 'text', 'class': 'cbi-section-create-name', 'disabled': lock });
		const add = E('button', { 'class': 'cbi-button cbi-button-add', 'disabled': lock, 'click': ui.createHandlerFn(this, () => {
			if (validation.check('uciname', name.value) !== true)
				return null;
			uci.add(this.map.config, this.type, name.value);
			return this.map.save(null, true);
		}) }, [ _('Add') ]);
		const nodes = this.sids().flatMap((sid) => [ E('div', { 'class': 'cbi-section-remove right' }, [ remove(sid) ]), E('h3', {}, sid.toUpperCase()), this.node(sid) ]);

		return this.frame(nodes.concat([ E('div', { 'class': 'cbi-section-create' }, [ name, add ]) ]), 'cbi-' + this.map.config + '-' + this.type);
	}
});

const Value = baseclass.extend({
	__init__(section, name, title, description) {
		Object.assign(this, { section, map: section.map, option: name, title, description, deps: [], fields: {}, rmempty: true });
	},
	depends(what, value) { this.deps.push(typeof what == 'string' ? { [what]: value } : what); },
	wanted(sid) {
		const value = (name) => this.section.children.find((one) => one.option == name).fields[sid].widget.getValue();
		return this.deps.length == 0 || this.deps.some((one) => Object.keys(one).every((name) => value(name) == one[name]));
	},
	load(sid) { return uci.get(this.map.config, sid, this.option); },
	cfgvalue(sid) { return this.load(sid); },
	formvalue(sid) { return this.fields[sid] ? this.fields[sid].widget.getValue() : null; },
	make(value, options) { return new widgets.Text(value, options); },

	render(sid) {
		const id = 'cbid.' + this.map.config + '.' + sid + '.' + this.option;
		const validate = this.validate ? (value) => this.validate(sid, value) : null;
		const widget = this.make(this.cfgvalue(sid) ?? this.default, { id, validate, datatype: this.datatype, placeholder: this.placeholder,
			password: this.password, disabled: this.map.readonly, choices: this.choices });
		const row = E('div', { 'class': 'cbi-value', 'id': 'cbi-' + this.map.config + '-' + sid + '-' + this.option, 'data-name': this.option }, [
			E('label', { 'class': 'cbi-value-title', 'for': 'widget.' + id }, this.title),
			E('div', { 'class': 'cbi-value-field' }, [ widget.render(),
				this.description ? E('div', { 'class': 'cbi-value-description' }, this.description) : '' ])
		]);

		this.fields[sid] = { widget, row };
		return row;
	},

	parse(sid) {
		const field = this.fields[sid];
		if (!field)
			return;
		if (!this.wanted(sid)) {
			if (!this.retain)
				uci.unset(this.map.config, sid, this.option);
			return;
		}
		if (!field.widget.isValid())
			throw new TypeError(_('Option "%s" contains an invalid input value.').format(this.title) + ' ' + field.widget.error);

		const value = field.widget.getValue();
		if (empty(value) || (this.rmempty && this.default != null && value == this.default))
			uci.unset(this.map.config, sid, this.option);
		else if (!same(value, this.cfgvalue(sid)))
			uci.set(this.map.config, sid, this.option, value);
	}
});

const Flag = Value.extend({
	default: '0',
	make(value, options) { return new widgets.Check(value, options); }
});

const ListValue = Value.extend({
	value(key, title) { this.choices = (this.choices || []).concat([ [ key, title ] ]); },
	make(value, options) { return new widgets.Choice(value, options); }
});

const DynamicList = Value.extend({
	make(value, options) { return new widgets.List(L.toArray(value), options); }
});

return baseclass.extend({ Map, NamedSection, TypedSection, Value, Flag, ListValue, DynamicList });
