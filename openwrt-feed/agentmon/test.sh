#!/bin/sh
# What OpenWrt's package CI runs in a container where the package is installed:
# sh test.sh PACKAGE VERSION
[ "$1" = agentmon ] || exit 0

agentmon-router --version | grep -F " ${2%-r*}" || exit 1
agentmon-router score www.example.com || exit 1
test -x /etc/init.d/agentmon || exit 1
test "$(ls -l /etc/config/agentmon | cut -c1-10)" = "-rw-------"
