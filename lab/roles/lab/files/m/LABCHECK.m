LABCHECK	; Prints what a copy of a lab database holds, for the cross-check of all servers.
	; Copyright: (c) 2026, OpenISB contributors
	; GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
	; SPDX-License-Identifier: GPL-3.0-or-later
	;
 ; Lines of fields separated by tabs; the first field is the type of the line. A part that cannot be read becomes an
 ; "error" line, and the others are still printed: a copy that is not from one moment may well be damaged.
	;
	do part("base"),part("accounts"),part("totals"),part("acknowledged")
	do part("out"),part("in")
	write "end",!
	quit
	;
part(name)	; One part, isolated from errors in the others.
	new $etrap
	set $etrap="do failed^LABCHECK(name) quit"
	do @name
	quit
	;
failed(name)	; A part that cannot be read.
	write !,"error",$char(9),name,$char(9),$translate($zstatus,$char(9,10)," "),!
	set $ecode=""
	quit
	;
base	; server, name / base, money
	write "server",$char(9),^LAB("server"),!
	write "base",$char(9),^LAB("base"),!
	quit
	;
accounts	; accounts, how many, sum
	new n,count,sum
	set n="",count=0,sum=0
	for  set n=$order(^ACCT(n)) quit:n=""  set count=count+1,sum=sum+^ACCT(n)
	write "accounts",$char(9),count,$char(9),sum,!
	quit
	;
totals	; total, out or in, peer, money
	new way,peer
	for way="out","in" do
	. set peer=""
	. for  set peer=$order(^TOTAL(way,peer)) quit:peer=""  write "total",$char(9),way,$char(9),peer,$char(9),^TOTAL(way,peer),!
	quit
	;
acknowledged	; acknowledged, peer, sequence number
	new peer
	set peer=""
	for  set peer=$order(^ACK(peer)) quit:peer=""  write "acknowledged",$char(9),peer,$char(9),^ACK(peer),!
	quit
	;
out	; high, out, peer, sequence number / entry, out, peer, sequence number, value
	do entries("out","^OUT")
	quit
	;
in	; the same, received
	do entries("in","^IN")
	quit
	;
entries(way,global)	; The highest sequence number and the entries of every peer.
	new peer,seq
	set peer=""
	for  set peer=$order(@global@(peer)) quit:peer=""  do
	. write "high",$char(9),way,$char(9),peer,$char(9),+$get(@global@(peer)),!
	. set seq=""
	. for  set seq=$order(@global@(peer,seq)) quit:seq=""  do
	. . write "entry",$char(9),way,$char(9),peer,$char(9),seq,$char(9),@global@(peer,seq),!
	quit
