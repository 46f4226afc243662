-- Why a session stopped, for those who look for it; 0 until it ends.
alter table session add column stop_reason int not null default 0;
create index session_metadata_idx on session using gin (metadata jsonb_path_ops);

-- Appends to any number of logs in one round trip and one transaction: what append_log did for one, turns included. Each
-- write is checked against its lease by itself: one that is not held is left out and does not come back. The leases are
-- locked in their order, as whoever renews them locks them, so that no two wait for each other. Each write that was made
-- comes back by its place, with how many signals its run has: so a driver need not ask for them.
create function append_logs(
  p_tenants text[], p_sessions text[], p_owners text[], p_fences bigint[],
  p_statuses int[], p_stop_reasons int[], p_topics text[], p_converged boolean[], p_rounds int[], p_ended timestamptz[], p_data bytea[],
  p_releases boolean[], p_over boolean[], p_taken int[], p_graph_statuses text[],
  p_lasts int[], p_sequences bigint[], p_kinds text[], p_payloads bytea[], p_macs bytea[],
  p_turns text[], p_turn_rounds int[], p_turn_agents text[], p_turn_prompts text[], p_turn_contents text[],
  p_turn_confidences float8[], p_turn_raws jsonb[], p_turn_data bytea[], p_turn_times timestamptz[]
) returns table (place int, signals int) language plpgsql as $$
declare
  i int;
  first int;
  final int;
  tenant text := '';
begin
  for i in select n from generate_subscripts(p_sessions, 1) as n order by p_tenants[n], p_sessions[n] loop
    if tenant <> p_tenants[i] then
      tenant := p_tenants[i];
      perform set_config('app.tenant', tenant, true);
    end if;
    perform 1 from session_lease
      where session_id = p_sessions[i] and owner = p_owners[i] and fence = p_fences[i] and expires_at > clock_timestamp()
      for update;
    continue when not found;
    first := case when i = 1 then 1 else p_lasts[i - 1] + 1 end;
    final := p_lasts[i];
    insert into event (tenant_id, session_id, sequence, kind, payload, mac)
      select tenant, p_sessions[i], e.sequence, e.kind, e.payload, e.mac
      from unnest(p_sequences[first:final], p_kinds[first:final], p_payloads[first:final], p_macs[first:final])
        as e(sequence, kind, payload, mac);
    update session set status = p_statuses[i], stop_reason = p_stop_reasons[i], topic_final = p_topics[i], converged = p_converged[i],
      rounds_executed = p_rounds[i], ended_at = p_ended[i], data = p_data[i]
      where id = p_sessions[i];
    if p_turns[i] is not null then
      insert into turn (tenant_id, id, session_id, round, agent_name, prompt, content, confidence, raw, data, created_at)
        values (tenant, p_turns[i], p_sessions[i], p_turn_rounds[i], p_turn_agents[i], p_turn_prompts[i],
          p_turn_contents[i], p_turn_confidences[i], p_turn_raws[i], p_turn_data[i], p_turn_times[i]);
    end if;
    select count(*) into signals from signal s where s.session_id = p_sessions[i];
    if p_releases[i] then
      update session_lease set owner = null, expires_at = '-infinity', takeovers = 0,
        ready = not p_over[i] and signals > p_taken[i]
        where session_id = p_sessions[i];
      if p_over[i] then
        update task_graph set status = p_graph_statuses[i] where session_id = p_sessions[i];
      end if;
    end if;
    place := i;
    return next;
  end loop;
end $$;
