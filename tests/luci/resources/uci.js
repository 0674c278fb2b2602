'use strict';
'require baseclass';
'require rpc';

/* UCI as views see it: values as loaded, changes on top of them until `save` sends them. */

const call = {
	get: rpc.declare({ object: 'uci', method: 'get', params: [ 'config' ], expect: { values: {} }, reject: true }),
	add: rpc.declare({ object: 'uci', method: 'add', params: [ 'config', 'type', 'name', 'values' ], reject: true }),
	set: rpc.declare({ object: 'uci', method: 'set', params: [ 'config', 'section', 'values' ], reject: true }),
	delete: rpc.declare({ object: 'uci', method: 'delete', params: [ 'config', 'section', 'options' ], reject: true })
};

return baseclass.extend({
	__init__() {
		this.base = {};
		this.now = {};
	},

	load(name) {
		if (this.base[name])
			return Promise.resolve([ name ]);

		return call.get(name).then((values) => {
			this.base[name] = values;
			this.now[name] = JSON.parse(JSON.stringify(values));
			return [ name ];
		});
	},

	unload(name) {
		delete this.base[name];
		delete this.now[name];
	},

	sections(name, type) {
		return Object.values(this.now[name] || {}).filter((one) => type == null || one['.type'] == type)
			.sort((a, b) => a['.index'] - b['.index']);
	},

	get(name, section, option) {
		const found = (this.now[name] || {})[section];
		if (found == null)
			return null;
		return option == null ? found : found[option] ?? null;
	},

	set(name, section, option, value) {
		const found = (this.now[name] || {})[section];
		if (found == null || option.startsWith('.'))
			return;
		if (value == null || value === '')
			delete found[option];
		else
			found[option] = value;
	},

	unset(name, section, option) { this.set(name, section, option, null); },

	add(name, type, section) {
		const key = section || 'new' + Math.random().toString(16).slice(2, 8);
		this.now[name][key] = { '.type': type, '.name': key, '.anonymous': !section, '.index': 1000 + Object.keys(this.now[name]).length, '.create': section };
		return key;
	},

	remove(name, section) { delete this.now[name][section]; },

	/* What changed, as calls: removed sections, new ones, then options. */
	save() {
		const tasks = [];
		const options = (section) => Object.entries(section).filter((pair) => !pair[0].startsWith('.'));

		for (const name in this.now) {
			const before = this.base[name], after = this.now[name];

			for (const key in before)
				if (after[key] == null)
					tasks.push(call.delete(name, key, undefined));

			for (const key in after) {
				if (before[key] == null) {
					tasks.push(call.add(name, after[key]['.type'], after[key]['.create'], Object.fromEntries(options(after[key]))));
					continue;
				}
				const gone = options(before[key]).filter((pair) => after[key][pair[0]] == null).map((pair) => pair[0]);
				const put = options(after[key]).filter((pair) => JSON.stringify(before[key][pair[0]]) != JSON.stringify(pair[1]));
				if (gone.length)
					tasks.push(call.delete(name, key, gone));
				if (put.length)
					tasks.push(call.set(name, key, Object.fromEntries(put)));
			}
		}

		const names = Object.keys(this.now);
		return Promise.all(tasks).then(() => {
			names.forEach((name) => this.unload(name));
			return Promise.all(names.map((name) => this.load(name)));
		});
	}
});
