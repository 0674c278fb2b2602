'use strict';
'require view';
'require form';
'require uci';
'require agentmon.fields as fields';
'require agentmon.collectors as collectors';
'require agentmon.detectors as detectors';

/*
 * Services > agentmon > Settings: a form over /etc/config/agentmon, section by section in
 * the file's own order. What an option means and which values it takes stands in
 * agentmon.fields, collectors and detectors; an empty field leaves the option out, which means the default that is
 * shown greyed.
 */

/* Every named section of the file the package installs. */
const SECTIONS = {
	main: 'agentmon', ring: 'ring', hub: 'hub',
	conntrack: 'collector', firewall: 'collector', passive_dns: 'collector',
	dnsmasq_log: 'collector', adguard: 'collector', syslog: 'collector', pihole: 'collector',
	pihole_ssh: 'collector', pihole_ftl: 'collector', leases: 'collector', neighbours: 'collector',
	blocklist: 'detector', dga: 'detector', direct_ip: 'detector', dns_bypass: 'detector',
	rejects: 'detector', watched: 'detector', new_device: 'detector', dns_tunnel: 'detector',
	dns_rebinding: 'detector', nxdomain_burst: 'detector', query_rate: 'detector',
	host_scan: 'detector', port_scan: 'detector', long_flow: 'detector', unusual_port: 'detector',
	devices: 'devices'
};

return view.extend({
	/* A section that somebody removed is there again with the next save: LuCI cannot show
	   the fields of a section that does not exist. */
	load() {
		return uci.load('agentmon').then(() => {
			for (const name in SECTIONS)
				if (uci.get('agentmon', name) == null)
					uci.add('agentmon', SECTIONS[name], name);
		});
	},

	render() {
		const map = new form.Map('agentmon', _('Settings'),
			_('What is watched on this router and where it is sent. Changes take effect with "Save & Apply"; an empty field means the value shown in grey.'));

		for (const add of [ fields.main, fields.hub, fields.ring,
			collectors.kernel, collectors.logs, collectors.piholes, collectors.devices,
			detectors.names, detectors.connections, detectors.exchanges, detectors.scans,
			fields.devices, fields.lists ])
			add(map);

		return map.render();
	}
});
