LABLOAD	; The steady load of a lab file server: money moves, within the server and between servers.
	; Copyright: (c) 2026, OpenISB contributors
	; GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
	; SPDX-License-Identifier: GPL-3.0-or-later
	;
	; What a database holds:
	;   ^LAB("server")              the server's name; written last by seed, so it means "seeded"
	;   ^LAB("base")                the money that the server started with
	;   ^LAB("keep")                how many old entries of each kind are kept
	;   ^REC(n)                     records that never change: the bulk of a real database
	;   ^ACCT(n)                    money on account n
	;   ^MOVE, ^MOVE(n)             count of moves within the server, and the latest ones
	;   ^OUT(peer), ^OUT(peer,seq)  highest sequence number sent to a peer, and the latest entries
	;   ^IN(peer), ^IN(peer,seq)    the same, received from a peer
	;   ^ACK(peer)                  highest sequence number that a peer has said to have stored
	;   ^TOTAL("out"|"in",peer)     money sent to and received from a peer
	;
	; Invariants at every moment, because each change is one transaction:
	;   on a server: sum of ^ACCT = ^LAB("base") + all ^TOTAL("in") - all ^TOTAL("out")
	;   between servers A and B: A's ^ACK(B) <= B's ^IN(A) <= A's ^OUT(B),
	;     and an entry in ^IN is the entry in ^OUT, word for word.
	; A copy of A and B that is not from one moment breaks the second invariant within a few transactions.
	quit
	;
seed(server,keep,records)	; Fill a new database. Runs before the load; a seeded database is left alone.
	new i,base
	if $data(^LAB("server")) quit
	for i=1:1:records set ^REC(i)=$$record(i)
	set base=0
	for i=1:1:1000 set ^ACCT(i)=10000,base=base+10000
	set ^LAB("base")=base,^LAB("keep")=keep
	set ^LAB("server")=server
	quit
	;
local(rate)	; Move money between two accounts of this server, rate times per second, forever.
	new due
	set due=$zut
	for  do move(1+$random(1000),1+$random(1000),1+$random(50)),pace(.due,rate)
	;
move(from,to,amount)	; One move, one transaction.
	new n
	tstart ():serial
	set ^ACCT(from)=^ACCT(from)-amount,^ACCT(to)=^ACCT(to)+amount
	set n=$increment(^MOVE),^MOVE(n)=from_"|"_to_"|"_amount_"|"_$$text(n)
	kill ^MOVE(n-^LAB("keep"))
	tcommit
	quit
	;
send(peer,address,rate)	; Send entries to a peer, rate per second, forever; reconnect when the connection breaks.
	for  do session(peer,address,rate) hang 1
	;
session(peer,address,rate)	; One connection: agree on what has arrived, then send one entry at a time.
	new device,due,seq
	new $etrap
	set device="peer",$etrap="do broken^LABLOAD(device) quit:$quit 0 quit"
	open device:(connect=address_":TCP":delimiter=$char(10)):5:"SOCKET"
	else  quit
	use device:(znodelay)
	write ^LAB("server"),!
	set seq=$$answer(10)
	if seq'="" do
	. do acknowledged(peer,seq)
	. set due=$zut
	. ; What an earlier connection left unanswered goes first.
	. for seq=seq+1:1:^OUT(peer) quit:'$$deliver(peer,seq)
	. for  do entry(peer,1+$random(1000),1+$random(50)) quit:'$$deliver(peer,^OUT(peer))  do pace(.due,rate)
	use $principal
	close device
	quit
	;
entry(peer,from,amount)	; Take money from an account for the peer, in one transaction.
	new seq
	tstart ():serial
	set ^ACCT(from)=^ACCT(from)-amount
	set ^TOTAL("out",peer)=$get(^TOTAL("out",peer))+amount
	set seq=$increment(^OUT(peer)),^OUT(peer,seq)=amount_"|"_$$text(seq)
	kill ^OUT(peer,seq-^LAB("keep"))
	tcommit
	quit
	;
deliver(peer,seq)	; Send one entry; true if the peer has stored it.
	write seq_"|"_^OUT(peer,seq),!
	if $$answer(30)'=seq quit 0
	do acknowledged(peer,seq)
	quit 1
	;
acknowledged(peer,seq)	; Record that a peer has stored all entries up to this one.
	tstart ():serial
	set ^OUT(peer)=+$get(^OUT(peer))
	if seq>$get(^ACK(peer)) set ^ACK(peer)=seq
	tcommit
	quit
	;
answer(seconds)	; The peer's next line; empty without a connection or an answer (a frozen peer answers late).
	new line
	read line:seconds
	else  quit ""
	quit line
	;
receive(port)	; Store what peers send, forever. One process serves all peers.
	new device,handle,key,peer
	set device="listener"
	open device:(listen=port_":TCP":attach="listener":delimiter=$char(10)):30:"SOCKET"
	else  write "port ",port," is taken",! zhalt 1
	use device
	write /listen(5)
	; Closing a connection makes the principal device current, so select the device each time.
	for  use device write /wait(60) set key=$key do
	. set handle=$piece(key,"|",2)
	. if $piece(key,"|")="CONNECT" set peer(handle)=""
	. if $piece(key,"|")="READ" do request(device,handle,.peer)
	;
request(device,handle,peer)	; One line from a connection: first the peer's name, then entries.
	new $etrap,line
	set $etrap="set $ecode="""" do hangup^LABLOAD(device,handle,.peer) quit"
	use device:(socket=handle)
	read line:10
	if '$test!$zeof!(line="") do hangup(device,handle,.peer) quit
	if peer(handle)="" set peer(handle)=line write +$get(^IN(line)),! quit
	do store(peer(handle),$piece(line,"|"),$piece(line,"|",2,9999))
	write $piece(line,"|"),!
	quit
	;
store(peer,seq,value)	; Book an entry that has arrived, in one transaction. No entry is booked twice.
	new to
	tstart ():serial
	if seq=($get(^IN(peer))+1) do
	. set to=1+$random(1000)
	. set ^ACCT(to)=^ACCT(to)+$piece(value,"|")
	. set ^TOTAL("in",peer)=$get(^TOTAL("in",peer))+$piece(value,"|")
	. set ^IN(peer)=seq,^IN(peer,seq)=value
	. kill ^IN(peer,seq-^LAB("keep"))
	tcommit
	quit
	;
hangup(device,handle,peer)	; Forget a connection. Ignore one that is already closed: its trap would call this again.
	new $etrap
	set $etrap="set $ecode="""" quit"
	kill peer(handle)
	close device:(socket=handle)
	quit
	;
broken(device)	; A connection broke: end the session, keep the process.
	new $etrap
	set $ecode="",$etrap="set $ecode="""" quit"
	if $tlevel trollback
	use $principal
	close device
	quit
	;
pace(due,rate)	; Wait until the next transaction is due. After a freeze the load continues at its rate, without a burst.
	set due=due+(1000000/rate)
	if due<$zut set due=$zut quit
	hang (due-$zut)/1000000
	quit
	;
record(n)	; A record of about 400 characters, part text and part number.
	new i,line
	set line=n
	for i=1:1:6 set line=line_"|"_$$text(n*7+i)
	quit line
	;
text(n)	; Words for a record, always the same for the same number.
	new i,line,words
	set words="admission allergy appointment consent discharge dosage encounter imaging insurance laboratory "
	set words=words_"medication nursing order patient pharmacy physician procedure referral result ward"
	set line=""
	for i=1:1:6 set line=line_$piece(words," ",1+(n*(i+3)+(n\(i*20))#20))_" "
	quit line_$extract(n*7919#1000000+1000000,2,7)
	;
status	; The progress of the load: lines of name and number, separated by a tab.
	new peer
	write "moves",$char(9),+$get(^MOVE),!
	set peer=""
	for  set peer=$order(^OUT(peer)) quit:peer=""  do
	. write "sent ",peer,$char(9),+$get(^OUT(peer)),!,"acknowledged ",peer,$char(9),+$get(^ACK(peer)),!
	for  set peer=$order(^IN(peer)) quit:peer=""  write "received ",peer,$char(9),+$get(^IN(peer)),!
	quit
