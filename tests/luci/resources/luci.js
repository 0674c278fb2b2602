/*
 * The browser tests' own stand-in for LuCI's client: classes, DOM helpers, the loader, polling
 * and views. Written from how LuCI's interface behaves, not from its source. It keeps the
 * traps of the original: a bare string given to E() becomes markup, null in a list of
 * children becomes the word "null", an error that leaves a view becomes a notification.
 */
'use strict';

(function() {
	const env = {};
	const modules = {};

	/* Classes: `extend` makes one, `__init__` constructs, `super` reaches the base. */
	function Class() {}

	Class.extend = function(members) {
		const base = this;
		const made = function(...args) {
			if (!(this instanceof made))
				throw new TypeError('class constructor called without new');
			this.__init__(...args);
		};

		made.prototype = Object.create(base.prototype, { constructor: { value: made } });
		for (const key in members)
			Object.defineProperty(made.prototype, key, { value: members[key], writable: true, configurable: true, enumerable: true });

		for (const name of [ 'extend', 'instantiate', 'isSubclass', 'singleton' ])
			made[name] = base[name];
		return made;
	};
	Class.instantiate = function(args) { return new this(...args); };
	Class.singleton = function(members) { return new (this.extend(members))(); };
	Class.isSubclass = function(other) { return typeof other == 'function' && other.prototype instanceof this; };
	Class.prototype.__init__ = function() {};
	Class.prototype.super = function(key, args) {
		let at = this;
		/* The definition in force for this instance, then the next one above it. */
		const level = this.__level || (this.__level = {});
		at = level[key] || this;
		while (!Object.prototype.hasOwnProperty.call(at, key))
			at = Object.getPrototypeOf(at);
		do { at = Object.getPrototypeOf(at); } while (at && !Object.prototype.hasOwnProperty.call(at, key));

		const before = level[key];
		level[key] = at;
		try { return at[key].apply(this, args || []); }
		finally { level[key] = before; }
	};

	const dom = Class.singleton({
		known: new WeakMap(),

		elem(value) {
			return value != null && typeof value == 'object' && 'nodeType' in value;
		},

		append(node, children) {
			if (Array.isArray(children))
				for (const child of children)
					node.appendChild(this.elem(child) ? child : document.createTextNode(String(child)));
			else if (typeof children == 'function')
				this.append(node, children(node));
			else if (this.elem(children))
				node.appendChild(children);
			else if (children != null)
				node.innerHTML = String(children);
			return node.lastChild;
		},

		content(node, children) {
			node.replaceChildren();
			return this.append(node, children);
		},

		attr(node, attributes) {
			for (const key in attributes) {
				const value = attributes[key];
				if (value == null)
					continue;
				if (typeof value == 'function')
					node.addEventListener(key, value);
				else
					node.setAttribute(key, typeof value == 'object' ? JSON.stringify(value) : value);
			}
		},

		create(what, attributes, children) {
			if (!(attributes instanceof Object) || Array.isArray(attributes) || this.elem(attributes))
				[ attributes, children ] = [ {}, attributes ];

			let node;
			if (Array.isArray(what)) {
				node = document.createDocumentFragment();
				what.forEach((one) => node.appendChild(this.elem(one) ? one : this.create(one)));
			}
			else {
				node = this.elem(what) ? what : document.createElement(what);
			}

			this.attr(node, attributes);
			this.append(node, children);
			return node;
		},

		bindClassInstance(node, instance) { this.known.set(node, instance); return instance; },
		findClassInstance(node) {
			for (let at = node; at != null; at = at.parentNode)
				if (this.known.has(at))
					return this.known.get(at);
			return null;
		},
		callClassMethod(node, method, ...args) {
			const instance = this.findClassInstance(node);
			return instance && instance[method] ? instance[method](...args) : null;
		}
	});

	window.E = (...args) => dom.create(...args);

	/* Calls each function every so many seconds, never one before its last call ended. */
	const poll = Class.singleton({
		queue: [],
		tick: 0,

		add(fn, seconds) {
			this.queue.push({ fn, seconds: seconds || env.pollinterval, ready: true });
			return true;
		},
		remove(fn) { this.queue = this.queue.filter((one) => one.fn !== fn); },
		active() { return this.timer != null; },
		start() {
			this.timer = this.timer || setInterval(() => this.step(), 1000);
		},
		stop() {
			clearInterval(this.timer);
			delete this.timer;
		},
		step() {
			for (const one of this.queue)
				if (one.ready && this.tick % one.seconds == 0) {
					one.ready = false;
					Promise.resolve(one.fn()).finally(() => { one.ready = true; });
				}
			this.tick++;
		}
	});

	function fail(error) {
		const ui = modules.ui;
		if (!error.reported && ui && ui.addNotification)
			ui.addNotification(error.name, E('pre', {}, error.message), 'danger');
		error.reported = true;
		throw error;
	}

	const View = Class.extend({
		__init__() {
			const place = document.getElementById('view');
			dom.content(place, E('div', { 'class': 'spinning' }, _('Loading view…')));

			Promise.resolve(window.L.ready)
				.then(() => this.load()).then((data) => this.render(data))
				.then((nodes) => {
					dom.content(place, nodes);
					dom.append(place, this.addFooter());
				}).catch(fail);
		},
		load() {},
		render() {},

		maps(method) {
			return Promise.all(Array.from(document.querySelectorAll('#maincontent .cbi-map'), (map) => dom.callClassMethod(map, method)));
		},
		handleSave() { return this.maps('save'); },
		handleSaveApply() { return this.handleSave().then(() => modules.ui.changes.apply()); },
		handleReset() { return this.maps('reset'); },

		addFooter() {
			const readonly = !Array.from(document.querySelectorAll('#view .cbi-map')).some((map) => !dom.findClassInstance(map).readonly);
			const button = (handler, kind, title) => this[handler] ? E('button', {
				'class': 'btn cbi-button cbi-button-' + kind, 'disabled': readonly ? '' : null,
				'click': modules.ui.createHandlerFn(this, handler)
			}, [ title ]) : '';
			const all = [ button('handleSaveApply', 'apply', _('Save & Apply')), ' ', button('handleSave', 'save', _('Save')), ' ', button('handleReset', 'reset', _('Reset')) ];

			return all.some((one) => dom.elem(one)) ? E('div', { 'class': 'cbi-page-actions' }, all) : E([]);
		}
	});

	Object.assign(modules, { baseclass: Class, dom, poll, view: View });

	/* 'require a.b as c' at the head of a module; the rest is its body, which returns a class. */
	const REQUIRE = /^require\s+(\S+)(?:\s+as\s+([A-Za-z_]\S*))?$/;

	function compile(source, url) {
		const needs = [];
		const head = /(?:\/\*[\s\S]*?\*\/|\/\/[^\n]*|\s+|;|'([^'\n]*)'|"([^"\n]*)")/y;
		let match;

		while ((match = head.exec(source)) != null) {
			const wanted = REQUIRE.exec(match[1] || match[2] || '');
			if (wanted)
				needs.push([ wanted[1], wanted[2] || wanted[1].replace(/[^A-Za-z0-9_]/g, '_') ]);
		}

		const names = needs.map((need) => need[1]);
		const run = new Function('window', 'document', 'L', ...names, '"use strict";\n' + source + '\n//# sourceURL=' + url);
		return { needs: needs.map((need) => need[0]), run };
	}

	const LuCI = Class.extend({
		__init__(setup) {
			Object.assign(env, setup);
			this.env = env;
			window.L = this;

			const dom_ready = new Promise((go) => document.addEventListener('DOMContentLoaded', go));
			this.ready = Promise.all([ dom_ready, this.require('ui'), this.require('rpc'), this.require('form') ]).then(() => {
				poll.start();
				this.loaded = true;
			});
		},

		require(name) {
			if (modules[name] == null) {
				const url = env.resource + '/' + name.replace(/\./g, '/') + '.js';

				modules[name] = fetch(url).then((reply) => {
					if (!reply.ok)
						throw new Error('HTTP error ' + reply.status + ' while loading ' + url);
					return reply.text();
				}).then((source) => {
					const unit = compile(source, url);

					return Promise.all(unit.needs.map((need) => this.require(need))).then((found) => {
						const made = unit.run(window, document, this, ...found);
						if (!Class.isSubclass(made))
							throw new TypeError(name + ' yields no class');
						return (modules[name] = new made());
					});
				});
			}
			return Promise.resolve(modules[name]);
		},

		url(...parts) { return [ env.scriptname ].concat(parts).join('/'); },
		resource(...parts) { return [ env.resource ].concat(parts).join('/'); },
		bind(fn, self, ...args) { return fn.bind(self, ...args); },
		isObject(value) { return value != null && typeof value == 'object'; },
		toArray(value) { return value == null || value === '' ? [] : Array.isArray(value) ? value : String(value).trim().split(/\s+/); },
		resolveDefault(value, standard) { return Promise.resolve(value).catch(() => standard); },
		hasViewPermission() { return env.nodespec && env.nodespec.satisfied ? !env.nodespec.readonly : null; },
		error: fail
	});

	window.LuCI = LuCI;
})();
