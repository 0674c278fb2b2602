'use strict';
'require view';
'require dom';
'require poll';
'require view.status.include.35_agentmon as card';

/* The overview page with this one card, drawn anew at every poll; a card without content is
   not shown. */

return view.extend({
	render() {
		const content = E('div');
		const frame = E('div', { 'class': 'cbi-section', 'style': 'display:none' }, [ E('div', { 'class': 'cbi-title' }, [ E('h3', {}, [ card.title ]) ]), content ]);

		const draw = () => card.load().then((data) => {
			const nodes = card.render(data);
			if (nodes != null) {
				frame.style.display = '';
				dom.content(content, nodes);
			}
		});

		poll.add(draw);
		return draw().then(() => frame);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
