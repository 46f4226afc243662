-- A lease says what kind of run it is of, so that a replica knows how to drive it without reading its log.
alter table session_lease add column kind text not null default 'session';
alter table signal add column target text not null default '';
create unique index task_graph_session_idx on task_graph (tenant_id, session_id);

-- Appends events to a log and writes its summary, in one round trip and one transaction, if the lease is still held; the
-- lease stays locked until the end, so that no takeover comes between. False: it is not held, and nothing was written.
-- Releasing gives the lease up: for good when the run has ended, else until there are more signals than were taken.
create function append_log(
  p_tenant text, p_session text, p_owner text, p_fence bigint,
  p_sequences bigint[], p_kinds text[], p_payloads bytea[], p_macs bytea[],
  p_status int, p_topic_final text, p_converged boolean, p_rounds int, p_ended timestamptz, p_data bytea,
  p_release boolean, p_over boolean, p_signals_taken int, p_graph_status text
) returns boolean language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  perform 1 from session_lease
    where session_id = p_session and owner = p_owner and fence = p_fence and expires_at > clock_timestamp()
    for update;
  if not found then
    return false;
  end if;
  insert into event (tenant_id, session_id, sequence, kind, payload, mac)
    select p_tenant, p_session, e.sequence, e.kind, e.payload, e.mac
    from unnest(p_sequences, p_kinds, p_payloads, p_macs) as e(sequence, kind, payload, mac);
  update session set status = p_status, topic_final = p_topic_final, converged = p_converged, rounds_executed = p_rounds,
    ended_at = p_ended, data = p_data
    where id = p_session;
  if p_release then
    update session_lease set owner = null, expires_at = '-infinity', takeovers = 0,
      ready = not p_over and (select count(*) from signal where session_id = p_session) > p_signals_taken
      where session_id = p_session;
    if p_over then
      update task_graph set status = p_graph_status where session_id = p_session;
    end if;
  end if;
  return true;
end $$;
