'use strict';
'require baseclass';
'require agentmon.check as check';
'require agentmon.options as options';

/*
 * The detectors of /etc/config/agentmon, section by section: title, help, check, default.
 * Names and defaults are those of the file the package installs; a test compares.
 */

const { section, flag, value, values, only } = options;

function repeat(s, standard) {
	return value(s, 'repeat', _('Tell again after'), _('The same is told once in this time.'), standard || '1h', check.duration('1s', '365d'));
}

return baseclass.extend({
	names(map) {
		let s = section(map, 'blocklist', 'detector', _('Detector: names on a list'), _('The lists themselves are below.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'entries_max', _('Names over all lists'), _('A million takes about 9 MB of memory.'), '1000000', check.whole(1, 100000000)),
			values(s, 'allow', _('Never told'), _('Names that are fine, with all below them; addresses and networks.'), check.exempt()),
			values(s, 'pattern', _('Known-bad parts of names'), _('At the begin of a label: evil- finds evil-7.example.'), check.pattern()),
			flag(s, 'hub_lists', _('Lists of the hub'), _('Whether the lists that the hub has compiled are fetched.'), '1'),
			value(s, 'hub_lists_size', _('Memory for them'), _('A million entries are 8 MB.'), '16M', check.size('1M', '1G')),
			repeat(s));

		s = section(map, 'dga', 'detector', _('Detector: generated names'), _('Names that look as if a program had made them.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'suspicious', _('Suspicious from'), _('From here on a name counts towards a burst, 0 to 1.'), '0.5', check.share()),
			value(s, 'strong', _('Told alone from'), _('From here on a single name is told, 0 to 1.'), '0.9', check.share()),
			value(s, 'burst', _('Names in a burst'), _('So many suspicious names within the time are a burst.'), '8', check.whole(2, 128)),
			value(s, 'window', _('Time of a burst'), '', '10m', check.duration('1s', '365d')),
			repeat(s));
	},

	connections(map) {
		let s = section(map, 'direct_ip', 'detector', _('Detector: address without a name'), _('Connections that no DNS answer explains.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'grace', _('Wait for the answer'), '', '3s', check.duration('0s', '5m')),
			value(s, 'startup_grace', _('Learn after a start'), _('For so long unexplained addresses are learnt and not told.'), '5m', check.duration('0s', '365d')),
			value(s, 'names_keep', _('Answers explain for'), _('Far longer than most answers are valid: devices keep addresses.'), '24h', check.duration('1s', '365d')),
			value(s, 'names_max', _('Answers remembered'), '', '16384', check.whole(1, 100000000)),
			value(s, 'many', _('Many at once'), _('More unexplained addresses of one device than this are told as one.'), '20', check.whole(1, 100000000)),
			flag(s, 'icmp', _('Ping counts too'), '', '0'),
			values(s, 'allow_service', _('Services used by address'), _('Port and protocol: 123/udp is the time service.'), check.service()),
			values(s, 'allow', _('Destinations never told'), '', 'or(ipaddr, cidr)'),
			values(s, 'ignore_client', _('Devices never told'), '', 'or(ipaddr, cidr)'),
			values(s, 'resolver', _('Resolvers'), _('The resolvers devices may ask by address. None: any.'), 'or(ipaddr, cidr)'),
			repeat(s));

		s = section(map, 'dns_bypass', 'detector', _('Detector: foreign resolvers'), _('Names resolved past the resolver of this network.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(values(s, 'ignore_client', _('Devices never told'), _('Those that ask for others, as a Pi-hole does.'), 'or(ipaddr, cidr)'),
			values(s, 'resolver', _('Resolvers'), _('Resolvers on the internet that devices may ask.'), 'or(ipaddr, cidr)'));

		s = section(map, 'rejects', 'detector', _('Detector: stopped packets'), _('Who insists and who scans.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'insist_packets', _('Packets that insist'), _('So many to one place within the repeat time.'), '35', check.whole(1, 100000000)),
			value(s, 'scan_window', _('Time of a scan'), '', '60s', check.duration('1s', '365d')),
			value(s, 'scan_addresses', _('Addresses of a scan'), '', '25', check.whole(2, 64)),
			value(s, 'scan_ports', _('Ports of a scan'), '', '15', check.whole(2, 64)),
			flag(s, 'inbound', _('Sum up the internet'), _('Whether to sum up what came from outside.'), '1'),
			repeat(s));

		s = section(map, 'watched', 'detector', _('Detector: watched names'), _('Names you want to know of: told once of each device that asks for them.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(values(s, 'name', _('Watched names'), '', check.domain()));

		s = section(map, 'new_device', 'detector', _('Detector: new devices'), _('Devices that were never seen before.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'learn', _('Learn at first'), _('For so long after the very first start devices are learnt and not told.'), '1d', check.duration('0s', '365d')),
			value(s, 'many', _('Many at once'), _('More new devices than this within an hour are told as one.'), '10', check.whole(1, 100000000)));
	},

	exchanges(map) {
		let s = section(map, 'dns_tunnel', 'detector', _('Detector: data in DNS names'), _('Tunnels, and data told by questions.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'weight', _('Bits in new names'), _('Below one domain, fading by half in 15 minutes: a name of 200 random characters weighs 3700.'), '8000', check.whole(1, 100000000)),
			value(s, 'trickle_weight', _('Bits that trickle'), _('The same for long names, fading by half in 6 hours.'), '24000', check.whole(1, 100000000)),
			value(s, 'many_names', _('New short names'), _('So many of one device below one domain are told too.'), '240', check.whole(1, 100000000)),
			values(s, 'allow', _('Domains never told'), _('Services that are asked by fingerprint or address.'), check.domain()),
			repeat(s));

		s = section(map, 'dns_rebinding', 'detector', _('Detector: private addresses'), _('Public names that stand for addresses of the house.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(values(s, 'allow', _('Domains never told'), _('The house\'s own, and those made for it.'), check.domain()), repeat(s));

		s = section(map, 'nxdomain_burst', 'detector', _('Detector: missing names'), _('Many names that do not exist.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'names', _('Names in many domains'), _('So many within five minutes are told.'), '50', check.whole(4, 300)),
			value(s, 'names_of_few', _('Names below few domains'), _('So many are somebody guessing.'), '100', check.whole(4, 300)),
			repeat(s));

		s = section(map, 'query_rate', 'detector', _('Detector: many questions'), _('Far more than usual.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'queries', _('Questions below one domain'), _('Fewer of one device in five minutes are no spike.'), '600', check.whole(1, 100000000)),
			value(s, 'queries_all', _('Questions altogether'), _('Fewer of one device in five minutes are no spike.'), '3000', check.whole(1, 100000000)),
			value(s, 'times_usual', _('Times as many'), _('So many times as many as usual are a spike.'), '8', check.whole(1, 100000000)),
			repeat(s));
	},

	scans(map) {
		let s = section(map, 'host_scan', 'detector', _('Detector: scans of addresses'), _('One port tried at many addresses.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'addresses', _('Addresses of a scan'), '', '40', check.whole(4, 300)),
			value(s, 'window', _('Time of a scan'), '', '5m', check.duration('1s', '365d')),
			repeat(s));

		s = section(map, 'port_scan', 'detector', _('Detector: scans of ports'), _('Many ports of one address tried.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'ports', _('Ports of a scan'), '', '15', check.whole(4, 300)),
			value(s, 'window', _('Time of a scan'), '', '5m', check.duration('1s', '365d')),
			repeat(s));

		s = section(map, 'long_flow', 'detector', _('Detector: long connections'), _('Connections that stay open for hours.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'from', _('Told from'), '', '4h', check.duration('1s', '365d')),
			flag(s, 'expected', _('Expected ones too'), _('VPNs, notifications and message queues, as information.'), '1'),
			repeat(s, '1d'));

		s = section(map, 'unusual_port', 'detector', _('Detector: unusual ports'), _('Ports a device never used before.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'learn', _('Learn at first'), _('For so long after a device was first seen its ports are learnt and not told.'), '1d', check.duration('0s', '365d')),
			value(s, 'many', _('Many at once'), _('More new ports of one device than this are told as one.'), '5', check.whole(1, 100000000)),
			values(s, 'allow_service', _('Ports never told'), _('Port and protocol: 123/udp is the time service.'), check.service()),
			repeat(s, '1d'));
	}
});
