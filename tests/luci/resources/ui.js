'use strict';
'require baseclass';
'require dom';

/* Notifications, the modal dialogue, buttons that wait for their promise. A title that is a
   bare string is markup here as it is in LuCI. */

function overlay() {
	let node = document.getElementById('modal_overlay');
	if (node == null) {
		node = document.body.appendChild(E('div', { 'id': 'modal_overlay', 'tabindex': '-1' }, [
			E('div', { 'class': 'modal', 'role': 'dialog', 'aria-modal': 'true' }) ]));
	}
	return node;
}

return baseclass.extend({
	addNotification(title, children, ...classes) {
		const place = document.getElementById('maincontent');
		const message = E('div', { 'class': [ 'alert-message' ].concat(classes).join(' ') });

		if (title != null)
			dom.append(message, E('h4', {}, title));
		dom.append(message, children);
		place.insertBefore(message, place.firstElementChild);
		return message;
	},

	showModal(title, children, ...classes) {
		const dialog = overlay().firstElementChild;

		dialog.setAttribute('class', [ 'modal' ].concat(classes).join(' '));
		dom.content(dialog, E('h4', {}, title));
		dom.append(dialog, children);
		document.body.classList.add('modal-overlay-active');
		return dialog;
	},

	hideModal() {
		document.body.classList.remove('modal-overlay-active');
		overlay().firstElementChild.replaceChildren();
	},

	createHandlerFn(self, fn, ...args) {
		const handler = (typeof fn == 'string') ? self[fn] : fn;

		return (ev) => {
			const button = ev.currentTarget;
			button.classList.add('spinning');
			button.disabled = true;
			Promise.resolve(handler.call(self, ...args, ev)).catch(() => {}).finally(() => {
				button.classList.remove('spinning');
				button.disabled = false;
			});
		};
	},

	changes: {
		apply() {
			window.dispatchEvent(new CustomEvent('test-apply'));
		}
	},

	instantiateView(path) {
		return L.require('view.' + path.replace(/\//g, '.')).catch((error) => {
			document.getElementById('view').replaceChildren();
			L.error(error);
		});
	}
});
