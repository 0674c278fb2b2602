'use strict';
'require view';
'require agentmon.api as api';
'require agentmon.live as live';
'require agentmon.parts as parts';
'require agentmon.widgets as widgets';

/*
 * Services > agentmon > Status: everything at a glance, asked every LuCI poll interval. The
 * alerts are a part of their own, so that one failing call does not hide the other's data.
 */

const LATEST = 5;

return view.extend({
	load() {
		return live.part(() => api.alerts(LATEST), (alerts) => [ parts.latest(alerts, LATEST) ], 10).then((alerts) =>
			live.part(() => api.status(), (status) => [
				parts.overview(status), parts.rates(status), parts.kernel(status), alerts.root,
				parts.collectors(status), parts.talkers(status), parts.drops(status)
			]).then((status) => {
				/* One trouble is told once: the second part speaks only when the first is well. */
				alerts.onlyWhile(status);
				return status;
			}));
	},

	render(status) {
		return widgets.page([
			E('h2', {}, [ _('agentmon') ]),
			E('div', { 'class': 'cbi-map-descr' }, [ _('What the devices in this network talk to, seen from the router.') ]),
			status.root
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
