'use strict';
'require baseclass';
'require form';
'require uci';
'require agentmon.check as check';

/*
 * The options of /etc/config/agentmon, section by section: title, help, check, default.
 * Names and defaults are those of the file the package installs; a test compares.
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

/* One reader holds an NFLOG group: two collectors that are on need two. */
function apart(one, oneSection, other, otherSection) {
	const number = (option, section_id) => option.formvalue(section_id) || option.placeholder;
	const on = (option, section_id) => option.section.formvalue(section_id, 'enabled') != '0';
	const differ = (value, standard, rival, rivalSection) =>
		!on(rival, rivalSection) || (value || standard) != number(rival, rivalSection);

	also(one, (section_id, value) => differ(value, one.placeholder, other, otherSection), _('another group than that of DNS on the wire'));
	also(other, (section_id, value) => differ(value, other.placeholder, one, oneSection), _('another group than that of the stopped packets'));
}

/* A list that is on has a file or names, not both. */
function either(enabled, path, names) {
	const has = (section_id) => L.toArray(names.formvalue(section_id)).length > 0;

	also(path, (section_id, value) => enabled.formvalue(section_id) != '1' || (value != '') != has(section_id),
		_('either a file, or names below: not both, not neither'));
}

return baseclass.extend({
	main(map) {
		const s = section(map, 'main', 'agentmon', _('Service'));

		flag(s, 'enabled', _('Switched on'), _('Whether the service runs at all.'), '1');
		flag(s, 'nft_table', _('Own firewall table'),
			_('Adds the table inet agentmon: the kernel tracks connections and copies DNS packets to the collector. It decides over no packet.'), '1');
		flag(s, 'log_rejects', _('See rejected packets'), _('Copies of what the firewall rejects, for the collector of stopped packets.'), '1');
		value(s, 'log_rejects_rate', _('Copies a second'), _('At most so many copies of rejected packets in a second.'), '100', check.whole(1, 100000));
		flag(s, 'enforce', _('Stop listed names'),
			_('Holds DNS questions and the first packets of connections, and judges them by the lists that may block. Needs kmod-nft-queue. The network goes on when agentmon stops or hangs.'), '0');
		flag(s, 'enforce_dry_run', _('Dry run'), _('Stops nothing, and tells what would have been stopped.'), '1');
		flag(s, 'enforce_addresses', _('Stop listed addresses'), _('Also the first packets to listed addresses, not only questions for listed names.'), '1');
		values(s, 'enforce_interface', _('Hold packets from'), _('Interfaces whose packets are held, such as br-lan. None: all.'), check.iface());

		choice(s, 'enforce_block', _('How to stop'), _('Whether the device gets an answer: no such name, connection refused.'), 'nxdomain',
			[ 'nxdomain', _('with an answer') ], [ 'drop', _('in silence') ]);
		values(s, 'local_network', _('Own networks'), _('Networks of the house besides the private ranges, such as a public prefix.'), 'or(ipaddr, cidr)');

		choice(s, 'log_level', _('Log level'), _('Least severe messages that are written to the system log.'), 'info',
			[ 'off', _('nothing') ], [ 'error', _('errors') ], [ 'warn', _('warnings') ], [ 'info', _('information') ],
			[ 'debug', _('details for finding faults') ], [ 'trace', _('everything') ]);
	},

	hub(map) {
		const s = section(map, 'hub', 'hub', _('Hub'), _('Where events are sent: a Linux machine that runs agentmon serve. Without one the router keeps the newest events.'));

		flag(s, 'enabled', _('Send events'), _('Whether events are sent to a hub.'), '1');
		const join = value(s, 'join', _('Join line'),
			_('The line that agentmon enroll printed on the hub: all that is needed. It is a secret.'), '', check.join());
		join.password = true;
		only(join,
			value(s, 'url', _('Address of the hub'), _('In place of the line, or to override it.'), 'https://192.0.2.10:8743', check.url()),
			value(s, 'name', _('Name of this sensor'), _('As the hub knows it.'), '', check.name()),
			value(s, 'token_file', _('File with the token'), _('Only without a join line.'), '/etc/agentmon/token', check.path()),
			value(s, 'ca', _('File with the hub\'s certificate'), _('Only without a join line.'), '/etc/agentmon/hub-ca.pem', check.path()),
			value(s, 'health_interval', _('Health report'), _('How often an idle router says that it is well.'), '30s', check.duration('1s', '1h')),
			value(s, 'batch_events', _('Events in one message'), _('Most events sent at once.'), '5000', check.whole(1, 50000)),
			value(s, 'batch_size', _('Size of one message'), _('Most bytes sent at once, before compression.'), '512K', check.size('64K', '8M')));
	},

	ring(map) {
		const s = section(map, 'ring', 'ring', _('Ring of events'), _('Where events wait for the hub. In memory by default: nothing is written to flash.'));

		value(s, 'path', _('File'), _('On /tmp it is in memory.'), '/tmp/agentmon/ring.db', check.path());
		value(s, 'size', _('Size'), _('Most bytes it takes; 16M hold about 125000 connections.'), '16M', check.size('2M', '4G'));
		value(s, 'snapshot_interval', _('Copy to flash every'),
			_('So that a power cut loses less: 1h, 24h; 0 means never. Each copy wears the flash.'), '0', check.durationOrNever('1m', '31d'));
		value(s, 'snapshot_path', _('Place of the copy'), _('A USB disk is kinder than the router\'s own flash.'),
			'/etc/agentmon/ring.snapshot', check.path());
	},

	collectors(map) {
		let s = section(map, 'conntrack', 'collector', _('Collector: connections'), _('From the kernel\'s connection table. Needs kmod-nf-conntrack-netlink.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'dump_interval', _('Full read every'), _('Gives the byte counts of long connections.'), '15s', check.duration('1s', '1h')),
			value(s, 'poll_interval', _('Full read without events every'), _('While the kernel sends no events (hardware offload).'), '5s', check.duration('1s', '1h')),
			value(s, 'flows_max', _('Open connections remembered'), _('About 250 bytes each.'), '32768', check.whole(1, 4194304)),
			flag(s, 'loopback', _('The router\'s talk with itself'), '', '0'),
			value(s, 'buffer', _('Event buffer'), _('Room for events not read yet; memory only while it is behind.'), '8M', check.size('64K', '1G')));

		s = section(map, 'firewall', 'collector', _('Collector: stopped packets'), _('What the firewall rejected. Needs kmod-nfnetlink-log.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		const rejects = value(s, 'group', _('NFLOG group'), _('Number of the group the copies come by.'), '5', check.whole(0, 65535));
		only(rejects);

		s = section(map, 'passive_dns', 'collector', _('Collector: DNS on the wire'), _('Questions and answers that pass the router. Needs kmod-nfnetlink-log.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		const dns = value(s, 'group', _('NFLOG group'), _('Number of the group the copies come by.'), '6', check.whole(0, 65535));
		apart(rejects, 'firewall', dns, 'passive_dns');
		only(dns,
			value(s, 'exchanges_max', _('Questions waiting for an answer'), _('About 250 bytes each.'), '4096', check.whole(16, 1048576)));

		s = section(map, 'dnsmasq_log', 'collector', _('Collector: log of dnsmasq'), _('Only where the questions cannot be seen on the wire. Needs query logging to a file in the DHCP and DNS settings.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(values(s, 'path', _('Log files'), '', check.path()),
			value(s, 'timezone', _('Time zone of the log'), _('local, utc, +02:00 or a POSIX time zone.'), 'local', check.timezone()),
			flag(s, 'from_start', _('Read what is there already'), _('At the very first start.'), '0'));

		s = section(map, 'adguard', 'collector', _('Collector: AdGuard Home'), _('Its query log. Set size_memory in its configuration to 1, or what it says comes late.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(value(s, 'path', _('File'), '', '/var/lib/adguardhome/data/querylog.json', check.path()),
			flag(s, 'from_start', _('Read what is there already'), _('At the very first start.'), '0'));

		s = section(map, 'syslog', 'collector', _('Collector: syslog'), _('What other machines with dnsmasq or Pi-hole send of their logs.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(values(s, 'udp', _('Datagrams on'), _('Address and port, like 0.0.0.0:5514.'), check.endpoint()),
			values(s, 'tcp', _('Connections on'), _('Address and port, like 0.0.0.0:5514.'), check.endpoint()),
			values(s, 'tls', _('TLS connections on'), _('Address and port, like 0.0.0.0:5514.'), check.endpoint()),
			value(s, 'tls_cert', _('Certificate'), _('For TLS: the chain, as PEM.'), '', check.path()),
			value(s, 'tls_key', _('Key of the certificate'), '', '', check.path()),
			value(s, 'tls_client_ca', _('CA of the senders'), _('Where given, senders must show a certificate of it.'), '', check.path()),
			values(s, 'allow', _('Who may send'), _('What others send is thrown away.'), 'or(ipaddr, cidr)'),
			value(s, 'timezone', _('Time zone of the log'), _('local, utc, +02:00 or a POSIX time zone.'), 'local', check.timezone()),
			value(s, 'rate', _('Messages a second'), _('Most of one sender.'), '5000', check.whole(1, 1000000)),
			value(s, 'connections_max', _('Connections at a time'), '', '64', check.whole(1, 1024)),
			value(s, 'lag', _('Late from'), _('Messages that come so late are told.'), '5m', check.duration('1s', '7d')),
			value(s, 'silence', _('Silent from'), _('A sender that is silent for so long is told; 0 means never.'), '30m', check.durationOrNever('1s', '7d')));

		s = section(map, 'pihole', 'collector', _('Collector: Pi-hole'), _('The log of a Pi-hole (v6) in the network, by its web interface.'));
		flag(s, 'enabled', _('Switched on'), '', '0');
		only(value(s, 'url', _('Web interface'), _('https://pi.hole, or with a port.'), 'https://pi.hole'),
			value(s, 'address', _('Address'), _('Where the router does not resolve the name.'), ''),
			value(s, 'password_file', _('Password file'), _('Holds an app password of the Pi-hole.'), '/etc/agentmon/pihole.password', check.path()),
			value(s, 'certificate', _('Certificate file'), _('A copy of /etc/pihole/tls_ca.crt of the Pi-hole.'), '/etc/agentmon/pihole.pem', check.path()));

		s = section(map, 'leases', 'collector', _('Collector: names of devices'), _('From DHCP leases.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(values(s, 'path', _('Lease files'), _('Files that do not exist are left alone.'), check.path()));

		s = section(map, 'neighbours', 'collector', _('Collector: neighbours'), _('Which MAC has which address, from the kernel.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'dump_interval', _('Full read every'), _('Changes are seen at once.'), '60s', check.duration('1s', '1h')));
	},

	detectors(map) {
		let s = section(map, 'blocklist', 'detector', _('Detector: names on a list'), _('The lists themselves are below.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'entries_max', _('Names over all lists'), _('A million takes about 9 MB of memory.'), '1000000', check.whole(1, 100000000)),
			values(s, 'allow', _('Never told'), _('Names that are fine, with all below them; addresses and networks.'), check.exempt()),
			values(s, 'pattern', _('Known-bad parts of names'), _('At the begin of a label: evil- finds evil-7.example.'), check.pattern()),
			flag(s, 'hub_lists', _('Lists of the hub'), _('Whether the lists that the hub has compiled are fetched.'), '1'),
			value(s, 'hub_lists_size', _('Memory for them'), _('A million entries are 8 MB.'), '16M', check.size('1M', '1G')),
			this.repeat(s));

		s = section(map, 'dga', 'detector', _('Detector: generated names'), _('Names that look as if a program had made them.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'suspicious', _('Suspicious from'), _('From here on a name counts towards a burst, 0 to 1.'), '0.5', check.share()),
			value(s, 'strong', _('Told alone from'), _('From here on a single name is told, 0 to 1.'), '0.9', check.share()),
			value(s, 'burst', _('Names in a burst'), _('So many suspicious names within the time are a burst.'), '8', check.whole(2, 128)),
			value(s, 'window', _('Time of a burst'), '', '10m', check.duration('1s', '365d')),
			this.repeat(s));

		s = section(map, 'direct_ip', 'detector', _('Detector: address without a name'), _('Connections that no DNS answer explains.'));
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
			this.repeat(s));

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
			this.repeat(s));

		s = section(map, 'watched', 'detector', _('Detector: watched names'), _('Names you want to know of: told once of each device that asks for them.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(values(s, 'name', _('Watched names'), '', check.domain()));

		s = section(map, 'new_device', 'detector', _('Detector: new devices'), _('Devices that were never seen before.'));
		flag(s, 'enabled', _('Switched on'), '', '1');
		only(value(s, 'learn', _('Learn at first'), _('For so long after the very first start devices are learnt and not told.'), '1d', check.duration('0s', '365d')),
			value(s, 'many', _('Many at once'), _('More new devices than this within an hour are told as one.'), '10', check.whole(1, 100000000)));
	},

	devices(map) {
		const s = section(map, 'devices', 'devices', _('Names of devices'), _('They come before the names that devices give themselves.'));

		values(s, 'name', _('Names'), _('A MAC or an address, =, the name: 192.168.1.9=camera.'), check.named());
		value(s, 'known_path', _('Devices seen so far'), _('On flash, as /etc/agentmon/known-devices, they outlive a reboot.'), '', check.path());
	},

	repeat(s) {
		return value(s, 'repeat', _('Tell again after'), _('The same is told once in this time.'), '1h', check.duration('1s', '365d'));
	},

	lists(map) {
		const s = map.section(form.TypedSection, 'list', _('Lists of names'),
			_('Hosts files, plain names, adblock, dnsmasq, unbound or RPZ syntax. A new list needs a name of letters, digits and underscores.'));
		s.addremove = true;
		s.anonymous = false;
		const enabled = flag(s, 'enabled', _('Switched on'), '', '1');
		const path = value(s, 'path', _('File'), '', '/etc/agentmon/lists/example.txt', check.path());
		value(s, 'score', _('How grave'), _('0 to 1: from 0.2 low, 0.4 medium, 0.6 high, above 0.8 critical.'), '0.8', check.share());
		flag(s, 'block', _('May be enforced'), _('Whether what is listed here is stopped where that is switched on.'), '0');
		choice(s, 'kind', _('What it is for'), '', 'bad',
			[ 'bad', _('tell what stands on it') ], [ 'allow', _('never tell what stands on it') ], [ 'watch', _('tell once of each device') ]);
		const names = values(s, 'domain', _('Names'), _('Names on the list, in place of a file.'), check.domain());
		either(enabled, path, names);
	}
});
