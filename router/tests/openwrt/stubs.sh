# Stands in for OpenWrt's own scripts: /etc/rc.common, procd.sh and /lib/functions.sh. What
# a service tells procd is printed, one call a line; the rest does as much as is needed.

USE_PROCD=
EXTRA_COMMANDS=
extra_command() { EXTRA_COMMANDS="$EXTRA_COMMANDS $1"; }

for call in procd_open_instance procd_set_param procd_append_param procd_close_instance \
	procd_add_jail procd_add_jail_mount procd_add_jail_mount_rw procd_add_reload_trigger \
	procd_add_reload_interface_trigger procd_add_validation procd_send_signal procd_kill; do
	eval "$call() { echo \"$call \$*\"; }"
done
uci_validate_section() { echo "uci_validate_section $*"; }
logger() {
	while [ $# -gt 1 ]; do shift; done
	echo "log: $1"
}

# config_load NAME; config_get_bool VARIABLE SECTION OPTION DEFAULT
config_load() { CONFIG_FILE="/etc/config/$1"; }
config_get_bool() {
	local found
	found="$(awk -v s="$2" -v o="$3" '
		$1 == "config" { name = $3; gsub(/\047/, "", name) }
		$1 == "option" && name == s && $2 == o { v = $3; gsub(/\047/, "", v); print v }
	' "$CONFIG_FILE" | tail -n 1)"
	case "${found:-$4}" in
	1 | on | true | yes | enabled) eval "$1=1" ;;
	*) eval "$1=0" ;;
	esac
}

rc_procd() {
	echo "service set"
	"$@"
	local result=$?
	service_triggers
	return $result
}

initscript="$1"
action="$2"
shift 2
. "$initscript"
case "$action" in
start) rc_procd start_service ;;
reload) if type reload_service >/dev/null; then reload_service; else rc_procd start_service; fi ;;
stop) procd_kill agentmon; if type service_stopped >/dev/null; then service_stopped; fi ;;
restart) procd_kill agentmon; service_stopped; rc_procd start_service ;;
status) status_service ;;
enabled) ls /etc/rc.d/S??agentmon >/dev/null 2>&1 ;;
enable) ln -sf ../init.d/agentmon "/etc/rc.d/S${START}agentmon"; ln -sf ../init.d/agentmon "/etc/rc.d/K${STOP}agentmon" ;;
disable) rm -f /etc/rc.d/S??agentmon /etc/rc.d/K??agentmon ;;
running) [ -e /tmp/stub-running ] ;;
*) case " $EXTRA_COMMANDS " in *" $action "*) "$action" ;; *) echo "no such command: $action"; exit 1 ;; esac ;;
esac
