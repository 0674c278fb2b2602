'use strict';
'require baseclass';
'require dom';
'require validation';

/* The fields a form is made of: each renders itself, has a value and knows whether it is right. */

function changed(node) {
	node.dispatchEvent(new CustomEvent('widget-change', { bubbles: true }));
}

const Field = baseclass.extend({
	__init__(value, options) {
		this.value = value;
		this.options = options;
		this.error = '';
	},

	/* Marks the input and tells what is wrong with `value`; an empty one is left alone. */
	judge(input, value) {
		const options = this.options;
		let verdict = true;

		if (value != null && value !== '' && options.datatype)
			verdict = validation.check(options.datatype, value);
		if (verdict === true && options.validate)
			verdict = options.validate(value);

		input.classList.toggle('cbi-input-invalid', verdict !== true);
		input.toggleAttribute('data-tooltip', verdict !== true);
		if (verdict !== true)
			input.setAttribute('data-tooltip', verdict);
		this.error = (verdict === true) ? '' : verdict;
		return verdict === true;
	},

	isValid() { return true; },

	frame(children) {
		const node = E('div', { 'id': this.options.id }, children);
		dom.bindClassInstance(node, this);
		return node;
	}
});

const Text = Field.extend({
	render() {
		this.input = E('input', {
			'id': 'widget.' + this.options.id, 'class': 'cbi-input-text', 'type': this.options.password ? 'password' : 'text',
			'placeholder': this.options.placeholder || null, 'value': this.value ?? '', 'disabled': this.options.disabled ? '' : null,
			'keyup': () => { this.isValid(); changed(this.input); }, 'blur': () => { this.isValid(); changed(this.input); }
		});
		return this.frame([ this.input ]);
	},
	getValue() { return this.input.value; },
	isValid() { return this.judge(this.input, this.input.value); }
});

const Check = Field.extend({
	render() {
		this.input = E('input', {
			'id': 'widget.' + this.options.id, 'type': 'checkbox', 'checked': this.value == '1' ? '' : null,
			'disabled': this.options.disabled ? '' : null, 'change': () => changed(this.input)
		});
		return this.frame([ this.input ]);
	},
	getValue() { return this.input.checked ? '1' : '0'; }
});

const Choice = Field.extend({
	render() {
		this.input = E('select', {
			'id': 'widget.' + this.options.id, 'class': 'cbi-input-select', 'disabled': this.options.disabled ? '' : null, 'change': () => changed(this.input)
		}, this.options.choices.map((one) => E('option', { 'value': one[0], 'selected': one[0] == this.value ? '' : null }, [ one[1] ])));
		return this.frame([ this.input ]);
	},
	getValue() { return this.input.value; }
});

/* Items with a field below that adds one. */
const List = Field.extend({
	item(value) {
		const item = E('div', { 'class': 'item', 'tabindex': '0', 'click': () => {
			if (!this.options.disabled) {
				item.remove();
				changed(this.root);
			}
		} }, [ E('span', {}, [ value ]), E('input', { 'type': 'hidden', 'value': value }) ]);
		return item;
	},
	add() {
		const value = this.input.value.trim();
		if (value == '' || !this.judge(this.input, value))
			return;
		this.root.insertBefore(this.item(value), this.adder);
		this.input.value = '';
		changed(this.root);
	},
	render() {
		const lock = this.options.disabled ? '' : null;
		this.input = E('input', { 'id': 'widget.' + this.options.id, 'type': 'text', 'class': 'cbi-input-text', 'disabled': lock,
			'keyup': () => this.judge(this.input, this.input.value), 'keydown': (ev) => { if (ev.key == 'Enter') this.add(); } });
		this.adder = E('div', { 'class': 'add-item' }, [ this.input,
			E('div', { 'class': 'btn cbi-button cbi-button-add', 'role': 'button', 'click': () => this.add() }, [ '+' ]) ]);
		this.root = this.frame(this.value.map((value) => this.item(value)).concat([ this.adder ]));
		this.root.classList.add('cbi-dynlist');
		return this.root;
	},
	getValue() { return Array.from(this.root.querySelectorAll('.item > input'), (input) => input.value); },
	isValid() { return this.judge(this.input, this.input.value); }
});

return baseclass.extend({ Text, Check, Choice, List });
